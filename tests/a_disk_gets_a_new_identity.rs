//! `vstack node adopt`: asks first, refuses what is in use, does it once, and says what it did.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use vstack_engine::{FileDisk, Item, Now, Op, PutMode, Store, StoreOptions};
use vstack_types::{Clock as _, NodeUuid, SystemClock};

fn adopt(directory: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vstack"))
        .args(["node", "adopt"])
        .arg(directory)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn open(directory: &Path) -> Store<FileDisk> {
    let clock = SystemClock::start();
    let now = Now {
        monotonic: clock.monotonic(),
        wall: clock.wall(),
    };
    let options = StoreOptions {
        superblock_bytes: 1 << 20,
        ..StoreOptions::new()
    };
    let mut store = Store::open(FileDisk::new(directory).unwrap(), options, now).unwrap();
    let put = Op::Put {
        id: "kept".parse().unwrap(),
        item: Item::new(&b"bytes"[..]),
        mode: PutMode::Plain,
    };
    store.commit(vec![put], now).remove(0).unwrap();
    store
}

#[test]
fn it_asks_refuses_adopts_and_does_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();

    let missing = adopt(&path.join("nowhere"), &["--yes"]);
    assert!(!missing.status.success() && said(&missing).contains("no directory"));
    assert!(!path.join("nowhere").exists(), "looking makes nothing");
    let empty = adopt(path, &["--yes"]);
    assert!(
        !empty.status.success() && said(&empty).contains("name the data directory"),
        "{}",
        said(&empty)
    );
    assert_eq!(
        path.read_dir().unwrap().count(),
        0,
        "it leaves nothing in what is none of ours"
    );

    let store = open(path);
    let old = store.me().uuid;
    let in_use = adopt(path, &["--yes"]);
    assert!(
        !in_use.status.success() && said(&in_use).contains("stop the node first"),
        "{}",
        said(&in_use)
    );
    drop(store);

    for unasked in [&[][..], &["--json"]] {
        let refused = adopt(path, unasked);
        assert!(
            !refused.status.success() && said(&refused).contains("--yes"),
            "{}",
            said(&refused)
        );
    }
    assert_eq!(open(path).me().uuid, old, "nothing was changed");

    let done = json(&adopt(path, &["--yes", "--json"]));
    let new: NodeUuid = done["disk_uuid"].as_str().unwrap().parse().unwrap();
    assert_ne!(new, old);
    assert_eq!(done["old_disk_uuid"], old.to_string());
    assert_eq!((&done["chunks"], &done["adopted_before"]), (&1.into(), &false.into()));

    let again = adopt(path, &["--yes"]);
    assert!(
        again.status.success() && said(&again).contains("adopted and not used since"),
        "{}",
        said(&again)
    );
    assert_eq!(String::from_utf8(again.stdout).unwrap().trim(), new.to_string());
    let again = json(&adopt(path, &["--json"]));
    assert_eq!(
        (&again["adopted_before"], &again["disk_uuid"]),
        (&true.into(), &new.to_string().into())
    );

    let store = open(path);
    assert_eq!(store.me().uuid, new);
    assert_eq!(store.report().retired, [old]);
    drop(store);
    // One that is in use again is given up only when it is wanted.
    let lost = adopt(path, &["--yes"]);
    let text = said(&lost);
    assert!(
        lost.status.success() && text.contains("Nothing that can be seen") && text.contains("Kept: 1 chunk, 5 B"),
        "{text}"
    );
}
