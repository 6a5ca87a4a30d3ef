//! Coding a chunk, and making two lost shards of it anew: the code that is used, beside ISA-L, the library that does it on
//! processors without the instructions, and two other crates, one after the other again and again, forwards and backwards.

use std::{
    hint::black_box,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reed_solomon_erasure::galois_8;
use vstack_erasure::{Code as _, ReedSolomon, Shape};

use super::{Bench, Length};
use crate::{
    report::{Beside, Section},
    targets,
};

const DATA: usize = 3;
const PARITY: usize = 2;
const CHUNK: usize = 2 * 1024 * 1024;
const ISAL: &str = include_str!("../../peers/isal.c");

/// Seconds that the original implementation took for the same, of coding and of making two shards anew, as they were noted
/// when the targets were set. It is not here to be measured.
const ORIGINAL_ENCODE_S: f64 = 4.25;
const ORIGINAL_REBUILD_S: f64 = 31.9;
/// Seconds of coding, as its own report has it.
const ORIGINAL_ENCODE_REPORTED_S: f64 = 3.4;

/// Who is measured, in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Ours,
    Isal,
    Portable,
    Erasure,
    Simd,
}

impl Contender {
    const ALL: [Self; 5] = [Self::Ours, Self::Isal, Self::Portable, Self::Erasure, Self::Simd];

    const fn column(self) -> &'static str {
        match self {
            Self::Ours => "V-Stack",
            Self::Isal => "ISA-L",
            Self::Portable => "rustfs-erasure-codec",
            Self::Erasure => "reed-solomon-erasure",
            Self::Simd => "reed-solomon-simd",
        }
    }
}

/// Who comes when: every second round the other way round. So V-Stack is before ISA-L as often as behind it, and what the
/// machine slowly becomes, warmer or busier, is to the advantage of neither.
fn order(round: usize) -> [Contender; 5] {
    let mut order = Contender::ALL;
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Nanoseconds: of coding, and of making two data shards anew.
#[derive(Debug, Clone, Copy)]
struct Took {
    encode: f64,
    rebuild: f64,
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let (pairs, times) = match bench.length {
        Length::Full => (30, 101),
        Length::Quick => (10, 51),
        Length::Smoke => (2, 5),
    };
    let directory = bench.directory.clone();
    tokio::task::spawn_blocking(move || measure(&directory, pairs, times)).await?
}

fn measure(directory: &Path, pairs: usize, times: usize) -> anyhow::Result<Section> {
    let mut section = begun(pairs, times);
    let shape = Shape::new(u8::try_from(DATA)?, u8::try_from(PARITY)?)?;
    let mut ours = Ours::new(ReedSolomon::new(shape));
    let mut portable = Ours::new(ReedSolomon::portable(shape));
    let mut erasure = Erasure::new()?;
    let mut isal = Isal::start(directory, times);
    let mut rounds: [Vec<Took>; 5] = Default::default();
    for contender in (0..pairs).flat_map(order) {
        let took = match contender {
            Contender::Ours => ours.round(times)?,
            Contender::Isal => match &mut isal {
                Ok(isal) => isal.round()?,
                Err(_told_below) => continue,
            },
            Contender::Portable => portable.round(times)?,
            Contender::Erasure => erasure.round(times)?,
            Contender::Simd => simd(times)?,
        };
        rounds[contender as usize].push(took);
    }
    if let Err(error) = &isal {
        section.note(format!(
            "ISA-L was not measured: {error:#}; `make setup-bench` installs it"
        ));
    }
    let mut beside = Beside::new("median of a round", Contender::ALL.map(Contender::column).to_vec());
    let microseconds = |of: fn(&Took) -> f64| {
        let rounds = rounds.iter();
        rounds
            .map(|rounds| rounds.iter().map(|took| of(took) / 1_000.0).collect())
            .collect()
    };
    beside.line("encode", "us", microseconds(|took| took.encode));
    beside.line("rebuild of two data shards", "us", microseconds(|took| took.rebuild));
    quote_the_original(&mut beside);
    section.beside.push(beside);
    let ratios = |of: fn(&Took) -> f64| -> Vec<f64> {
        let pairs = rounds[Contender::Ours as usize]
            .iter()
            .zip(&rounds[Contender::Isal as usize]);
        pairs.map(|(ours, isal)| of(ours) / of(isal)).collect()
    };
    section.judge_rounds(targets::CODING_ENCODE, "", &ratios(|took| took.encode));
    section.judge_rounds(targets::CODING_REBUILD, "", &ratios(|took| took.rebuild));
    section.note(
        "every contender writes into memory that it had before; the rebuild of reed-solomon-simd allocates, as its \
         interface has it",
    );
    section.note(
        "rustfs-erasure-codec is what V-Stack itself uses (`ReedSolomon::portable`) where the processor has no AVX-512 or \
         no GFNI; where it has none here, both columns are the same code",
    );
    Ok(section)
}

/// It is not here: what was said of it is told as that, beside what was measured.
fn quote_the_original(beside: &mut Beside) {
    let microseconds = [ORIGINAL_ENCODE_S, ORIGINAL_REBUILD_S].map(|seconds| Some(seconds * 1e6));
    beside.quote(
        "the original implementation",
        microseconds.to_vec(),
        format!(
            "{ORIGINAL_ENCODE_S} s to encode and {ORIGINAL_REBUILD_S} s to rebuild two data shards, as noted on another \
             machine when the targets were set; the original's own report has about {ORIGINAL_ENCODE_REPORTED_S} s to \
             encode, and nothing of a rebuild"
        ),
    );
}

/// With nothing measured yet.
fn begun(pairs: usize, times: usize) -> Section {
    let about = format!(
        "a chunk of 2 MiB as {DATA}+{PARITY} shards, one thread each, memory used again; {pairs} rounds, every second one in \
         reverse order, of each the median of {times} times"
    );
    Section::new("coding", about)
}

fn shard_len() -> usize {
    CHUNK.div_ceil(DATA)
}

fn random_shards(len: usize) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(7);
    let shard = |_| {
        let mut shard = vec![0; len];
        rng.fill_bytes(&mut shard);
        shard
    };
    (0..DATA).map(shard).collect()
}

/// The median of `times` runs, in nanoseconds.
fn median(times: usize, mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        run()?;
        took.push(began.elapsed().as_secs_f64() * 1e9);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[times / 2])
}

/// As the product does it, here or on any processor.
struct Ours {
    code: ReedSolomon,
    shards: Vec<Vec<u8>>,
}

impl Ours {
    fn new(code: ReedSolomon) -> Self {
        let mut shards = random_shards(shard_len());
        shards.resize(DATA + PARITY, vec![0; shard_len()]);
        Self { code, shards }
    }

    fn round(&mut self, times: usize) -> anyhow::Result<Took> {
        let Self { code, shards } = self;
        let encode = median(times, || {
            let (data, parity) = shards.split_at_mut(DATA);
            let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            code.parity(black_box(&data), &mut parity);
            Ok(())
        })?;
        let whole: Vec<Vec<u8>> = shards[..2].to_vec();
        let rebuild = median(times, || {
            let lost = shards.iter_mut().enumerate();
            let mut shards: Vec<(&mut [u8], bool)> = lost.map(|(at, shard)| (shard.as_mut_slice(), at >= 2)).collect();
            Ok(code.data(black_box(&mut shards))?)
        })?;
        ensure!(shards[..2] == whole, "two shards were made anew, and are others");
        Ok(Took { encode, rebuild })
    }
}

/// The crate that ours descends from.
struct Erasure {
    code: galois_8::ReedSolomon,
    shards: Vec<Vec<u8>>,
}

impl Erasure {
    fn new() -> anyhow::Result<Self> {
        let mut shards = random_shards(shard_len());
        shards.resize(DATA + PARITY, vec![0; shard_len()]);
        Ok(Self {
            code: galois_8::ReedSolomon::new(DATA, PARITY)?,
            shards,
        })
    }

    fn round(&mut self, times: usize) -> anyhow::Result<Took> {
        let Self { code, shards } = self;
        let encode = median(times, || Ok(code.encode(black_box(&mut *shards))?))?;
        let rebuild = median(times, || {
            let lost = shards.iter_mut().enumerate();
            let mut shards: Vec<(&mut [u8], bool)> = lost.map(|(at, shard)| (shard.as_mut_slice(), at >= 2)).collect();
            Ok(code.reconstruct_data(black_box(&mut shards))?)
        })?;
        Ok(Took { encode, rebuild })
    }
}

/// Its shards have an even length.
fn simd(times: usize) -> anyhow::Result<Took> {
    let len = shard_len().next_multiple_of(64);
    let data = random_shards(len);
    let mut encoder = reed_solomon_simd::ReedSolomonEncoder::new(DATA, PARITY, len)?;
    let mut parity: Vec<Vec<u8>> = Vec::new();
    let encode = median(times, || {
        for shard in &data {
            encoder.add_original_shard(shard)?;
        }
        let encoded = encoder.encode()?;
        if parity.is_empty() {
            parity = encoded.recovery_iter().map(<[u8]>::to_vec).collect();
        }
        black_box(&encoded);
        Ok(())
    })?;
    let mut decoder = reed_solomon_simd::ReedSolomonDecoder::new(DATA, PARITY, len)?;
    let rebuild = median(times, || {
        for (at, shard) in data.iter().enumerate().skip(2) {
            decoder.add_original_shard(at, shard)?;
        }
        for (at, shard) in parity.iter().enumerate() {
            decoder.add_recovery_shard(at, shard)?;
        }
        let decoded = decoder.decode()?;
        ensure!(
            decoded.restored_original(0) == Some(data[0].as_slice()),
            "another shard"
        );
        Ok(())
    })?;
    Ok(Took { encode, rebuild })
}

/// A process of its own: it is C.
struct Isal {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Isal {
    fn start(directory: &Path, times: usize) -> anyhow::Result<Self> {
        let (source, program) = (directory.join("isal.c"), directory.join("isal"));
        std::fs::write(&source, ISAL)?;
        let built = Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(&source)
            .arg("-lisal")
            .output()
            .context("cc cannot be run")?;
        if !built.status.success() {
            let first = String::from_utf8_lossy(&built.stderr);
            bail!("{}", first.lines().next().unwrap_or("it cannot be built"));
        }
        let arguments = [DATA, PARITY, shard_len(), times].map(|argument| argument.to_string());
        let mut child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().context("it has no input")?;
        let from = BufReader::new(child.stdout.take().context("it has no output")?);
        Ok(Self { child, to, from })
    }

    fn round(&mut self) -> anyhow::Result<Took> {
        self.to.write_all(b"go\n")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let mut figures = line.split_whitespace().map(str::parse::<f64>);
        let mut next = || figures.next().context("it ended early")?.context("no figure");
        Ok(Took {
            encode: next()?,
            rebuild: next()?,
        })
    }
}

impl Drop for Isal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_is_quoted_and_never_measured() {
        let mut section = begun(30, 101);
        let mut beside = Beside::new("median of a round", vec!["V-Stack"]);
        for figure in ["encode", "rebuild of two data shards"] {
            beside.line(figure, "us", vec![vec![1.0]]);
        }
        quote_the_original(&mut beside);
        assert!(beside.lines.iter().all(|line| line.rounds.len() == 1));
        section.beside.push(beside);
        let told = section.text();
        let line = |with: &str| told.lines().find(|line| line.contains(with)).expect("a line");
        assert!(line("median of a round  ").ends_with("  the original implementation (quoted)"));
        assert!(line("encode, us").ends_with(" 4250000"), "{told}");
        assert!(line("rebuild of two data shards, us").ends_with(" 31900000"), "{told}");
        let quoted = line("4.25 s");
        for part in [
            "quoted, not measured here: the original implementation",
            "31.9 s",
            "the original's own report has about 3.4 s",
        ] {
            assert!(quoted.contains(part), "{part} is not in {quoted}");
        }
    }

    #[test]
    fn who_comes_first_changes_from_round_to_round() {
        let order: Vec<_> = (0..4).flat_map(order).collect();
        let ours_and_isal: Vec<_> = order
            .iter()
            .filter(|one| matches!(one, Contender::Ours | Contender::Isal))
            .collect();
        let (ours, isal) = (&Contender::Ours, &Contender::Isal);
        assert_eq!(ours_and_isal, [ours, isal, isal, ours, ours, isal, isal, ours]);
        for contender in Contender::ALL {
            assert_eq!(
                order.iter().filter(|one| **one == contender).count(),
                4,
                "{contender:?}"
            );
            assert_eq!(Contender::ALL[contender as usize], contender, "it has its own column");
        }
    }

    #[test]
    fn what_any_processor_does_is_measured_beside_what_this_one_does() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let section = measure(directory.path(), 1, 1).expect("measured");
        let beside = &section.beside[0];
        let at = beside
            .columns
            .iter()
            .position(|column| *column == "rustfs-erasure-codec");
        let at = at.expect("a column");
        for line in &beside.lines {
            assert_eq!((line.rounds[0].len(), line.rounds[at].len()), (1, 1), "{}", line.figure);
        }
        assert_eq!(beside.columns.len(), 5);
    }
}
