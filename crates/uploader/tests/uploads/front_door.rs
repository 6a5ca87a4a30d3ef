//! What is refused at the door, and why.

use std::io::{Read as _, Write as _};

use reqwest::multipart::{Form, Part};

use crate::support::{Cluster, eventually};

fn file(bytes: &'static [u8]) -> Part {
    Part::bytes(bytes).file_name("x.mp4")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_video_is_refused_with_a_reason_and_leaves_nothing() {
    let cluster = Cluster::start(1).await;
    let uploader = cluster.uploader(&["--max-upload-bytes", "1000"]).await;
    let text = "This is not a video. ".as_bytes();
    let playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n";
    let cases = [
        (Form::new().text("title", "No file"), 400, "no field `video`"),
        (Form::new().part("video", file(b"")), 400, "the file is empty"),
        (
            Form::new().part("video", file(text)),
            415,
            "not a readable video in MP4, MOV, MKV, WebM, AVI or FLV",
        ),
        (Form::new().part("video", file(playlist)), 415, "not a readable video"),
        (
            Form::new().part("video", file(&[7; 1001])),
            413,
            "larger than the 1000 bytes",
        ),
        (
            Form::new().part("video", file(text)).part("video", file(text)),
            400,
            "more than one",
        ),
        (
            Form::new().text("title", "x".repeat(501)).part("video", file(text)),
            400,
            "more than 500 characters",
        ),
        (
            Form::new().text("title", "x".repeat(5000)).part("video", file(text)),
            400,
            "longer than 4096 bytes",
        ),
        (
            Form::new().text("redundancy_mode", "raid5").part("video", file(text)),
            400,
            "redundancy_mode",
        ),
    ];
    for (form, status, words) in cases {
        let (got, body) = uploader.post_form(form).await;
        assert!(
            got == status && body["detail"].as_str().unwrap().contains(words),
            "{got} {body}, not {status} {words}"
        );
        assert!(body["code"].is_string(), "{body}");
    }
    let answer = uploader
        .http
        .post(format!("{}/upload", uploader.url))
        .body("not a form")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    eventually("an empty spool", async || {
        cluster.upload_dirs().is_empty().then_some(())
    })
    .await;
    assert!(cluster.metadata.videos(&[]).await.unwrap().is_empty());
    for (method, path) in [
        ("GET", "upload/status/abc123"),
        ("GET", "upload/events/abc123"),
        ("DELETE", "upload/abc123"),
    ] {
        let request = uploader
            .http
            .request(method.parse().unwrap(), format!("{}/{path}", uploader.url));
        assert_eq!(request.send().await.unwrap().status(), 404, "{method} {path}");
    }
}

/// Sends `head` and 50 MiB, slowly, and only then looks at what was answered.
fn send_it_all(address: &str, head: &str, first: &str) -> String {
    const BYTES: usize = 50 << 20;
    let mut request = std::net::TcpStream::connect(address).unwrap();
    request.set_nodelay(true).unwrap();
    let length = first.len() + BYTES;
    let close = "Host: x\r\nConnection: close";
    write!(
        request,
        "POST /upload HTTP/1.1\r\n{close}\r\nContent-Length: {length}\r\n{head}\r\n\r\n{first}"
    )
    .unwrap();
    for _ in 0..BYTES >> 16 {
        // A link of some 60 MB/s at most: slower than whoever would close the connection.
        std::thread::sleep(std::time::Duration::from_millis(1));
        request.write_all(&[b'x'; 1 << 16]).unwrap();
    }
    let mut answer = String::new();
    request.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_reach_a_sender_that_looks_only_at_the_end() {
    let cluster = Cluster::start(1).await;
    let strict = cluster.uploader(&["--max-upload-bytes", "1000"]).await;
    let address = strict.url.trim_start_matches("http://").to_owned();
    let form = "Content-Type: multipart/form-data; boundary=x";
    let cases = [
        (form, "", "413", "too_large"),
        ("Content-Type: text/plain", "", "413", "too_large"),
    ];
    for (head, first, status, code) in cases {
        let address = address.clone();
        let answer = tokio::task::spawn_blocking(move || send_it_all(&address, head, first));
        let answer = answer.await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code),
            "{answer}"
        );
    }
    strict.stop().await;
    let uploader = cluster.uploader(&[]).await;
    let address = uploader.url.trim_start_matches("http://").to_owned();
    let long = "--x\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\n";
    let cases = [
        ("Content-Type: text/plain", "", "400", "malformed"),
        (form, long, "400", "malformed"),
    ];
    for (head, first, status, code) in cases {
        let address = address.clone();
        let answer = tokio::task::spawn_blocking(move || send_it_all(&address, head, first));
        let answer = answer.await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_asked_for_a_refused_body_is_not_asked() {
    let cluster = Cluster::start(1).await;
    let uploader = cluster.uploader(&["--max-upload-bytes", "1000"]).await;
    let address = uploader.url.trim_start_matches("http://").to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut request = std::net::TcpStream::connect(address).unwrap();
        let head = "POST /upload HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n";
        write!(request, "{head}").unwrap();
        let mut answer = String::new();
        request.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_says_when_to_come_again() {
    let cluster = Cluster::start(1).await;
    let uploader = cluster.uploader(&["--max-concurrent-uploads", "1"]).await;
    let address = uploader.url.trim_start_matches("http://").to_owned();
    // One that is processed and a hundred that wait: as many requests that never end.
    let mut held = Vec::new();
    for _ in 0..101 {
        let mut request = std::net::TcpStream::connect(&address).unwrap();
        let head = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 99\r\n\r\n--x";
        write!(request, "{head}").unwrap();
        held.push(request);
    }
    eventually("all of them to be in", async || {
        (cluster.upload_dirs().len() == 101).then_some(())
    })
    .await;
    let form = Form::new().part("video", file(b"bytes"));
    let answer = uploader
        .http
        .post(format!("{}/upload", uploader.url))
        .multipart(form)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "10");
    held.pop();
    eventually("room again", async || {
        let (status, _) = uploader.post(b"bytes".to_vec()).await;
        (status == 415).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_metadata_service_nothing_is_promised() {
    let mut cluster = Cluster::start(0).await;
    let clip = cluster.clip().await;
    // A port that was free a moment ago: nobody listens there.
    let gone = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    cluster.metadata_url = format!("http://{gone}");
    let uploader = cluster.uploader(&[]).await;
    let (status, body) = uploader.post(clip).await;
    assert!(
        status == 503 && body["detail"].as_str().unwrap().contains("metadata service"),
        "{status} {body}"
    );
    eventually("an empty spool", async || {
        cluster.upload_dirs().is_empty().then_some(())
    })
    .await;
}
