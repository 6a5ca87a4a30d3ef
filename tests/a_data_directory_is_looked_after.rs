//! `vstack node inspect`, `verify`, `scrub` and `compact`: what they find, what they change, and what they leave alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime},
};

use vstack_engine::{Disk as _, FileDisk, Item, Now, Op, PutMode, Store, StoreOptions, Which};
use vstack_types::{Clock as _, SystemClock};

const SUPERBLOCK_BYTES: u64 = 1 << 20;
const FIRST: &str = "superblock_000000.vsb";

fn command(tool: &str, directory: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vstack"));
    command
        .args(["node", tool])
        .arg(directory)
        .args(["--max-superblock-size", "8388608"])
        .args(more)
        .stdin(Stdio::null());
    command
}

fn run(tool: &str, directory: &Path, more: &[&str]) -> Output {
    command(tool, directory, more).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Exit code and report.
fn report(tool: &str, directory: &Path) -> (i32, serde_json::Value) {
    report_of(tool, directory, &[])
}

fn report_of(tool: &str, directory: &Path, more: &[&str]) -> (i32, serde_json::Value) {
    let output = run(tool, directory, &[&["--json"][..], more].concat());
    let code = output.status.code().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (code, report.unwrap_or_else(|_| panic!("{code}: {}", said(&output))))
}

fn now() -> Now {
    let clock = SystemClock::start();
    Now {
        monotonic: clock.monotonic(),
        wall: clock.wall(),
    }
}

fn open(directory: &Path, claims: bool) -> Store<FileDisk> {
    let options = StoreOptions {
        superblock_bytes: SUPERBLOCK_BYTES,
        claims,
        ..StoreOptions::new()
    };
    Store::open(FileDisk::new(directory).unwrap(), options, now()).unwrap()
}

/// Different for each number.
fn bytes(number: u8) -> Vec<u8> {
    (0..300_000_u32)
        .map(|at| number ^ at.to_le_bytes()[(at % 3) as usize])
        .collect()
}

fn name(number: u8) -> String {
    format!("chunk-{number}")
}

fn put(store: &mut Store<FileDisk>, number: u8) {
    let put = Op::Put {
        id: name(number).parse().unwrap(),
        item: Item::new(bytes(number)),
        mode: PutMode::Plain,
    };
    store.commit(vec![put], now()).remove(0).unwrap();
}

/// Three chunks to a superblock.
fn filled(directory: &Path, chunks: u8) {
    let mut store = open(directory, false);
    (0..chunks).for_each(|number| put(&mut store, number));
    store.mark(now()).unwrap();
}

fn holds(store: &Store<FileDisk>, number: u8) -> bool {
    let reader = store.reader();
    let found = reader.find(&name(number).parse().unwrap(), Which::Public);
    found.is_ok_and(|found| reader.read(&found, None, now().monotonic).unwrap() == bytes(number))
}

/// Turns a bit of a chunk's bytes.
fn damage(directory: &Path, number: u8) {
    let path = directory.join(FIRST);
    let mut contents = std::fs::read(&path).unwrap();
    let wanted = &bytes(number)[1000..1064];
    let at = contents.windows(64).position(|here| here == wanted).unwrap();
    contents[at] ^= 1;
    std::fs::write(path, contents).unwrap();
}

type Snapshot = BTreeMap<String, (Vec<u8>, SystemTime)>;

fn snapshot(directory: &Path) -> Snapshot {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let changed = entry.metadata().unwrap().modified().unwrap();
        let contents = std::fs::read(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), (contents, changed))
    });
    files.collect()
}

/// The superblocks that a report of `compact` calls emptied.
fn emptied(report: &serde_json::Value) -> Vec<Option<u64>> {
    let numbers = report["emptied"].as_array().unwrap().iter();
    let mut emptied: Vec<_> = numbers.map(serde_json::Value::as_u64).collect();
    emptied.sort_unstable();
    emptied
}

#[test]
fn what_is_no_data_directory_or_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for tool in ["inspect", "verify", "scrub", "compact"] {
        let nowhere = run(tool, &path.join("nowhere"), &[]);
        assert_eq!(nowhere.status.code(), Some(1), "{tool}");
        assert!(said(&nowhere).contains("no directory"), "{tool}: {}", said(&nowhere));
        let empty = run(tool, path, &[]);
        assert_eq!(empty.status.code(), Some(1), "{tool}");
        assert!(
            said(&empty).contains("name the data directory"),
            "{tool}: {}",
            said(&empty)
        );
        assert_eq!(
            path.read_dir().unwrap().count(),
            0,
            "{tool} leaves nothing in what is none of ours"
        );
    }
    filled(path, 1);
    let store = open(path, false);
    for tool in ["inspect", "verify", "scrub", "compact"] {
        let in_use = run(tool, path, &[]);
        assert_eq!(in_use.status.code(), Some(1), "{tool}");
        assert!(
            said(&in_use).contains("stop the node first"),
            "{tool}: {}",
            said(&in_use)
        );
    }
    drop(store);
}

#[test]
fn inspect_and_verify_change_nothing_and_find_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    filled(path, 7);
    let before = snapshot(path);

    let (code, seen) = report("inspect", path);
    assert_eq!((code, &seen["chunks"], &seen["torn_bytes"]), (0, &7.into(), &0.into()));
    assert_eq!(seen["chunk_bytes"], 7 * 300_000);
    assert_eq!(seen["superblocks"].as_array().unwrap().len(), 3);
    assert_eq!(seen["damage"], serde_json::json!([]));
    let (code, seen) = report("verify", path);
    assert_eq!(
        (code, &seen["chunks"], &seen["damage_found"]),
        (0, &7.into(), &false.into())
    );
    let text = run("inspect", path, &[]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("7 chunks, 2.1 MB") && text.contains("written to"),
        "{text}"
    );
    assert!(snapshot(path) == before, "nothing was changed");

    // A write that was cut off: seen by both, and no damage.
    let mut store = open(path, false);
    put(&mut store, 7);
    drop(store);
    let last = path.join("superblock_000002.vsb");
    let mut contents = std::fs::read(&last).unwrap();
    let end = contents.iter().rposition(|byte| *byte != 0).unwrap();
    contents[end - 8192..].fill(0);
    std::fs::write(&last, contents).unwrap();
    let before = snapshot(path);
    let (code, seen) = report("verify", path);
    assert_eq!((code, &seen["chunks"]), (0, &7.into()), "{seen}");
    assert!(seen["torn_bytes"].as_u64().unwrap() > 200_000, "{seen}");
    assert!(report("inspect", path).1["torn_bytes"].as_u64().unwrap() > 200_000);
    assert!(snapshot(path) == before, "the torn tail is still there");

    damage(path, 1);
    let before = snapshot(path);
    let (code, seen) = report("verify", path);
    assert_eq!((code, &seen["damage_found"]), (3, &true.into()), "{seen}");
    assert!(
        seen["damage"][0]
            .as_str()
            .unwrap()
            .starts_with("chunk chunk-1, SHA-256"),
        "{seen}"
    );
    assert!(snapshot(path) == before, "nothing was mended");
    // Without the lock, too: a copy has none.
    std::fs::remove_file(path.join("lock")).unwrap();
    assert_eq!(report("verify", path).0, 3);
    assert!(!path.join("lock").exists());
}

#[test]
fn scrub_quarantines_what_verify_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    filled(path, 3);
    damage(path, 1);
    let (code, seen) = report("scrub", path);
    assert_eq!(
        (code, &seen["quarantined"], &seen["complete"]),
        (3, &1.into(), &true.into()),
        "{seen}"
    );
    let (code, seen) = report("verify", path);
    assert_eq!(
        (code, &seen["quarantined"], &seen["chunks"]),
        (0, &1.into(), &2.into()),
        "{seen}"
    );
    assert!(
        seen["checkpoint"].as_str().unwrap().starts_with("up to record"),
        "{seen}"
    );
    assert_eq!(report("scrub", path).0, 0, "it is known, and found no more");
    let store = open(path, false);
    assert_eq!([0, 1, 2].map(|number| holds(&store, number)), [true, false, true]);
}

#[test]
fn a_damaged_checkpoint_is_found_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    filled(path, 3);
    assert_eq!(report("scrub", path).0, 0);
    let checkpoint = path.join("checkpoint");
    let mut contents = std::fs::read(&checkpoint).unwrap();
    let middle = contents.len() / 2;
    contents[middle] ^= 1;
    std::fs::write(&checkpoint, contents).unwrap();
    let (code, seen) = report("verify", path);
    assert_eq!((code, &seen["chunks"]), (3, &3.into()), "{seen}");
    assert!(seen["damage"][0].as_str().unwrap().contains("checkpoint"), "{seen}");
    assert_eq!(report("scrub", path).0, 3);
    assert_eq!(report("verify", path).0, 0, "another was written");
}

#[test]
fn a_disk_that_registers_claims_its_log_before_it_is_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    filled(path, 1);
    assert_eq!(report("scrub", path).0, 0);
    assert!(!path.join("claim").exists(), "it never registered");
    let store = open(path, true);
    store.reader().set_claim(None).unwrap();
    drop(store);
    let (_, accepted) = report("inspect", path);
    assert!(accepted["claim"].is_null());
    assert_eq!(report("scrub", path).0, 0);
    let (_, claimed) = report("inspect", path);
    assert_eq!(claimed["claim"], accepted["log_seq"], "as the log was before");
}

fn deleted(path: &Path, chunks: impl Iterator<Item = u8>) {
    let mut store = open(path, false);
    for number in chunks {
        let id = name(number).parse().unwrap();
        store.commit(vec![Op::DeleteStaged { id }], now()).remove(0).unwrap();
    }
    store.mark(now()).unwrap();
}

#[test]
fn compact_gives_back_what_is_not_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    filled(path, 12);
    deleted(path, (0..12).filter(|number| number % 3 != 0));
    let unknown = run("compact", path, &["--superblock", "99"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("no superblock 99"), "{}", said(&unknown));
    let one = run("compact", path, &["--superblock", "1", "--json"]);
    let one: serde_json::Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(
        (&one["emptied"], &one["complete"]),
        (&serde_json::json!([1]), &true.into()),
        "{one}"
    );
    let (code, all) = report("compact", path);
    // The third was the last one until something was written behind it.
    assert_eq!((code, emptied(&all)), (0, vec![Some(0), Some(2), Some(3)]), "{all}");
    assert_eq!(all["stayed"], serde_json::json!([]), "{all}");
    assert!(
        all["allocated_bytes_after"].as_u64() < all["allocated_bytes_before"].as_u64(),
        "{all}"
    );
    assert_eq!(
        report("compact", path).1["emptied"],
        serde_json::json!([]),
        "nothing is left to do"
    );
    let (code, seen) = report("verify", path);
    assert_eq!((code, &seen["chunks"]), (0, &4.into()), "{seen}");
    let store = open(path, false);
    (0..12).for_each(|number| assert_eq!(holds(&store, number), number % 3 == 0, "{number}"));
}

/// Of these a sixth of what they take is waste, when they are put one by one: too little to be worth it beside a node's work.
const SMALL: usize = 30_000;

/// Nearly three superblocks of them.
const SMALL_COUNT: u8 = 80;

fn filled_with_small(directory: &Path) {
    let mut store = open(directory, false);
    for number in 0..SMALL_COUNT {
        let put = Op::Put {
            id: name(number).parse().unwrap(),
            item: Item::new(bytes(number)[..SMALL].to_vec()),
            mode: PutMode::Plain,
        };
        store.commit(vec![put], now()).remove(0).unwrap();
    }
    store.mark(now()).unwrap();
}

#[test]
fn compact_gives_back_as_little_waste_as_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    filled_with_small(path);
    let unsaid: &[&str] = &[];
    for beside in [unsaid, &["--waste", "30"]] {
        let (code, seen) = report_of("compact", path, beside);
        assert_eq!((code, &seen["emptied"]), (0, &serde_json::json!([])), "{seen}");
    }
    let (code, seen) = report_of("compact", path, &["--waste", "10"]);
    // With the last one, which is written to.
    assert_eq!((code, emptied(&seen)), (0, vec![Some(0), Some(1), Some(2)]), "{seen}");
    let payload = u64::from(SMALL_COUNT) * SMALL as u64;
    assert_eq!(
        (&seen["moved_records"], &seen["moved_bytes"], &seen["complete"]),
        (&SMALL_COUNT.into(), &payload.into(), &true.into()),
        "{seen}"
    );
    let taken = |when: &str| seen[format!("allocated_bytes_{when}")].as_u64().unwrap();
    assert!(taken("before") * 10 > payload * 12, "{seen}");
    assert!(taken("after") * 10 < payload * 11, "nothing is taken ahead: {seen}");
    let on_disk = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    let on_disk = on_disk.filter(|file| file.path().extension().is_some_and(|of| of == "vsb"));
    let on_disk: u64 = on_disk.map(|file| file.metadata().unwrap().blocks() * 512).sum();
    assert!(on_disk * 10 < payload * 11, "{on_disk}: that is so, and not only said");

    let (code, again) = report_of("compact", path, &["--waste", "10"]);
    assert_eq!((code, &again["emptied"]), (0, &serde_json::json!([])), "{again}");
    let (code, seen) = report("verify", path);
    assert_eq!((code, &seen["chunks"]), (0, &SMALL_COUNT.into()), "{seen}");
}

#[test]
fn compact_says_what_it_gave_back_and_refuses_what_is_no_share() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    filled_with_small(path);
    let before = snapshot(path);
    let table: [(&[&str], &str); 4] = [
        (&["--waste", "0"], "1..=100"),
        (&["--waste", "101"], "1..=100"),
        (&["--waste", "some"], "--waste"),
        (&["--waste", "10", "--superblock", "0"], "--superblock"),
    ];
    for (wrong, said_of) in table {
        let refused = run("compact", path, wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}: {}", said(&refused));
        assert!(said(&refused).contains(said_of), "{wrong:?}: {}", said(&refused));
    }
    assert!(snapshot(path) == before, "nothing was touched");

    let text = run("compact", path, &["--waste", "10"]);
    assert_eq!(text.status.code(), Some(0), "{}", said(&text));
    let text = String::from_utf8(text.stdout).unwrap();
    let line = |begins: &str| text.lines().find(|line| line.starts_with(begins)).unwrap_or_default();
    let emptied = line("emptied ");
    assert!(["0", "1", "2"].iter().all(|number| emptied.contains(number)), "{text}");
    assert!(line("written ").contains("80 records again, 2.4 MB"), "{text}");
    assert!(line("takes ").contains("2.4 MB, before 3.1 MB"), "{text}");
}

#[test]
fn ctrl_c_ends_it_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    filled(path, 9);
    deleted(path, (0..9).filter(|number| number % 3 != 0));
    for (tool, rate) in [("scrub", "30000"), ("compact", "30000")] {
        let child = command(tool, path, &["--rate", rate])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let disk = FileDisk::new(path).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        // It has the directory: ten seconds of every chunk are ahead of it.
        while disk.lock().is_ok() {
            assert!(Instant::now() < deadline, "{tool} never began");
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130), "{tool}");
        assert!(said(&ended).contains("nothing is lost"), "{tool}: {}", said(&ended));
        let (code, seen) = report("verify", path);
        assert_eq!((code, &seen["chunks"]), (0, &3.into()), "{tool}: {seen}");
    }
    assert_eq!(report("compact", path).0, 0);
    let store = open(path, false);
    (0..9).for_each(|number| assert_eq!(holds(&store, number), number % 3 == 0, "{number}"));
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    filled(path, 3);
    let checkpoint = path.join("checkpoint");
    let _ = std::fs::remove_file(&checkpoint);
    let (kind, mode) = (
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    );
    rustix::fs::mknodat(rustix::fs::CWD, &checkpoint, kind, mode, 0).unwrap();
    for tool in ["inspect", "verify"] {
        let mut child = command(tool, path, &["--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("{tool} waits");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().unwrap();
        let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(seen["chunks"], 3, "{tool}: {seen}");
    }
}

#[test]
fn a_second_node_on_a_directory_says_why_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(dir.path()).unwrap();
    let node = || {
        let mut node = Command::new(env!("CARGO_BIN_EXE_vstack"));
        node.args(["storage-node", "--port", "0", "--scrub-period", "0", "--data-dir"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        node
    };
    let mut first = node().stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !dir.path().join(FIRST).exists() || disk.lock().is_ok() {
        assert!(Instant::now() < deadline, "the first never began");
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = node().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("in use by another process"), "{}", said(&second));
    let pid = rustix::process::Pid::from_child(&first);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(first.wait().unwrap().success());
}
