//! Faults on the medium, planted one at a time in a disk that is known to the last byte.

mod fault;
mod image;
mod judge;

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IteratorRandom};
use vstack_engine::FileDisk;

pub use self::{
    fault::{ALL, Kind},
    image::{Image, Place},
    judge::FoundBy,
};
use self::{
    fault::{is_of_no_account, plant},
    image::{Files, PAGE, in_memory, without_checkpoint},
    judge::Judge,
};

/// Every so manieth fault is planted in a real directory.
const ON_FILES: u64 = 8;

/// Where faults of each kind at each place were found.
pub type Counts = BTreeMap<(Place, Kind), BTreeMap<FoundBy, usize>>;

/// Plants the fault `number` in a copy of `image`, and says where it was found.
pub fn case(image: &Image, number: u64) -> Result<((Place, Kind), FoundBy), String> {
    let mut rng = StdRng::seed_from_u64(number);
    let count = ALL.len() as u64;
    let (place, kind) = ALL[usize::try_from(number % count).unwrap()];
    let (files, told) = plant(image, place, kind, &mut rng);
    let with_checkpoint = place == Place::Checkpoint || (number / count).is_multiple_of(2);
    let context = |wrong: String| format!("fault {number}, {told}, checkpoint {with_checkpoint}: {wrong}");
    let planted = if with_checkpoint {
        files.clone()
    } else {
        without_checkpoint(&files)
    };
    let judge = Judge {
        truth: &image.truth,
        is_small: kind == Kind::Flip,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let found = if number.is_multiple_of(ON_FILES) {
        let directory = tempfile::tempdir().unwrap();
        let disk = on_files(directory.path(), &planted);
        runtime.block_on(judge.judge(&disk))
    } else {
        runtime.block_on(judge.judge(&in_memory(&planted)))
    };
    let found = found.map_err(context)?;
    if found == FoundBy::Nothing && !is_of_no_account(image, &files) {
        return Err(context("it is found by nothing".to_owned()));
    }
    Ok(((place, kind), found))
}

/// Lets a byte rot in a running store, in a copy of `image`; one scrub finds it.
pub fn case_running(image: &Image, number: u64) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(number);
    let places = [Place::Header, Place::Payload, Place::Commit];
    let place = places[usize::try_from(number % 3).unwrap()];
    let alive = image
        .pieces
        .iter()
        .filter(|piece| piece.place == place && !piece.is_dead);
    let piece = alive.choose(&mut rng).unwrap();
    let at = rng.random_range(piece.from..piece.to);
    let disk = in_memory(&image.files);
    let judge = Judge {
        truth: &image.truth,
        is_small: true,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let judged = runtime.block_on(judge.judge_running(&disk, || disk.flip(&piece.file, at)));
    let context = |wrong| {
        format!(
            "flip {number}, {place:?} {} at {at} in {}..{}: {wrong}",
            piece.file, piece.from, piece.to
        )
    };
    judged.map(|_| ()).map_err(context)
}

/// A directory that holds `files`, with holes where pages are zeros.
fn on_files(root: &std::path::Path, files: &Files) -> FileDisk {
    use std::os::unix::fs::FileExt as _;
    let disk = FileDisk::new(root).unwrap();
    for (name, bytes) in files {
        let file = std::fs::File::create(root.join(name)).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (page, at) in bytes.chunks(PAGE).zip((0..).step_by(PAGE)) {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, at).unwrap();
            }
        }
    }
    disk
}
