//! Writes what the engine's fuzz targets begin with: a folder for each target, a file for each seed.
//! `cargo run -p vstack-engine --features fuzzing --example fuzz_seeds -- fuzz/corpus`

use std::{fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("error: say where the corpus is, as in `fuzz_seeds fuzz/corpus`");
        return ExitCode::FAILURE;
    };
    for seed in vstack_engine::fuzzing::seeds() {
        let folder = corpus.join(seed.target);
        let written = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join(format!("seed-{}", seed.name)), &seed.bytes));
        if let Err(error) = written {
            eprintln!("error: {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
