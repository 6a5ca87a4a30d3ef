//! A fragment: one `moof` with its `mdat`, and when it is shown.

use bytes::Bytes;

use super::{
    boxes::{Cursor, Fmp4Error, FourCc, children, required},
    init::{SampleDefaults, Track, TrackKind},
};

/// Most samples in one fragment. A fragment is about a second; sound has under 200 samples in that.
const SAMPLES_MAX: usize = 100_000;

/// `sample_is_non_sync_sample` of the sample flags.
const NON_SYNC: u32 = 0x0001_0000;

/// One `moof` + `mdat`.
#[derive(Debug, Clone, PartialEq)]
pub struct Fragment {
    /// Both boxes.
    pub bytes: Bytes,
    /// When its first picture is shown, in seconds; of its sound when it has no picture.
    pub start: f64,
    /// When its last sample ends, of whichever track, in seconds.
    pub end: f64,
    /// It has pictures, and the first can be decoded without any before.
    pub independent: bool,
}

/// What a `moof` says, before its `mdat` is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moof {
    pub start: f64,
    pub end: f64,
    pub independent: bool,
    /// Sum of its samples' sizes.
    pub sample_bytes: u64,
}

/// What one `traf` says.
struct Run {
    video: bool,
    start: f64,
    end: f64,
    sync: bool,
    sample_bytes: u64,
}

impl Moof {
    /// Reads the payload of a `moof` about `tracks`.
    pub fn parse(moof: &[u8], tracks: &[Track]) -> Result<Self, Fmp4Error> {
        let kind = FourCc(*b"moof");
        let mut runs = Vec::new();
        for entry in children(kind, moof) {
            let (kind, payload) = entry?;
            if kind == FourCc(*b"traf") {
                if runs.len() > tracks.len() {
                    return Err(Fmp4Error::TooMany {
                        what: "track fragments",
                        max: tracks.len(),
                    });
                }
                runs.extend(traf(payload, tracks)?);
            }
        }
        let lead = runs
            .iter()
            .find(|run| run.video)
            .or(runs.first())
            .ok_or(Fmp4Error::Missing { kind: FourCc(*b"traf") })?;
        Ok(Self {
            start: lead.start.max(0.0),
            end: runs.iter().map(|run| run.end).fold(0.0, f64::max),
            independent: lead.video && lead.sync,
            sample_bytes: runs.iter().map(|run| run.sample_bytes).sum(),
        })
    }
}

/// None for a track fragment without samples.
fn traf(payload: &[u8], tracks: &[Track]) -> Result<Option<Run>, Fmp4Error> {
    let kind = FourCc(*b"traf");
    let (id, overrides) = tfhd(required(kind, payload, FourCc(*b"tfhd"))?)?;
    let track = tracks
        .iter()
        .find(|track| track.id == id)
        .ok_or(Fmp4Error::UnknownTrack { track: id })?;
    let defaults = SampleDefaults {
        duration: overrides.duration.unwrap_or(track.defaults.duration),
        size: overrides.size.unwrap_or(track.defaults.size),
        flags: overrides.flags.unwrap_or(track.defaults.flags),
    };
    let decode_start = tfdt(required(kind, payload, FourCc(*b"tfdt"))?)?;
    let mut times = Times {
        decode: decode_start,
        first_shown: i64::MAX,
        last_end: i64::MIN,
        sync: None,
        bytes: 0,
    };
    let mut count = 0;
    for entry in children(kind, payload) {
        let (kind, payload) = entry?;
        if kind == FourCc(*b"trun") {
            trun(payload, defaults, &mut times, &mut count)?;
        }
    }
    let seconds = |time: i64| to_seconds(time.saturating_sub(track.media_time), track.timescale);
    Ok(times.sync.map(|sync| Run {
        video: track.kind == TrackKind::Video,
        start: seconds(times.first_shown),
        end: seconds(times.last_end),
        sync,
        sample_bytes: times.bytes,
    }))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits of time units are 285 years at the finest timescale"
)]
fn to_seconds(time: i64, timescale: u32) -> f64 {
    time as f64 / f64::from(timescale)
}

#[derive(Default)]
struct Overrides {
    duration: Option<u32>,
    size: Option<u32>,
    flags: Option<u32>,
}

fn tfhd(payload: &[u8]) -> Result<(u32, Overrides), Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"tfhd"), payload);
    let (_, flags) = fields.version_flags()?;
    let id = fields.u32()?;
    if flags & 0x1 != 0 {
        fields.u64()?;
    }
    if flags & 0x2 != 0 {
        fields.u32()?;
    }
    let mut optional = |bit: u32| {
        if flags & bit == 0 {
            Ok(None)
        } else {
            fields.u32().map(Some)
        }
    };
    Ok((
        id,
        Overrides {
            duration: optional(0x8)?,
            size: optional(0x10)?,
            flags: optional(0x20)?,
        },
    ))
}

fn tfdt(payload: &[u8]) -> Result<i64, Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"tfdt"), payload);
    let (version, _) = fields.version_flags()?;
    // Read as signed: a source with negative times that were not shifted gives a wrapped value.
    if version == 1 {
        fields.i64()
    } else {
        fields.u32().map(i64::from)
    }
}

struct Times {
    decode: i64,
    first_shown: i64,
    last_end: i64,
    /// Whether the first sample is a sync sample; none before there is one.
    sync: Option<bool>,
    bytes: u64,
}

fn trun(payload: &[u8], defaults: SampleDefaults, times: &mut Times, count: &mut usize) -> Result<(), Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"trun"), payload);
    let (version, flags) = fields.version_flags()?;
    let samples = fields.u32()? as usize;
    *count = count.saturating_add(samples);
    if *count > SAMPLES_MAX {
        return Err(Fmp4Error::TooMany {
            what: "samples in a fragment",
            max: SAMPLES_MAX,
        });
    }
    if flags & 0x1 != 0 {
        fields.i32()?;
    }
    let mut first_flags = if flags & 0x4 == 0 { None } else { Some(fields.u32()?) };
    for _ in 0..samples {
        let duration = if flags & 0x100 == 0 {
            defaults.duration
        } else {
            fields.u32()?
        };
        let size = if flags & 0x200 == 0 {
            defaults.size
        } else {
            fields.u32()?
        };
        let own_flags = if flags & 0x400 == 0 {
            defaults.flags
        } else {
            fields.u32()?
        };
        let shift = match (flags & 0x800, version) {
            (0, _) => 0,
            (_, 0) => i64::from(fields.u32()?),
            _ => i64::from(fields.i32()?),
        };
        let sample_flags = first_flags.take().unwrap_or(own_flags);
        times.sync.get_or_insert(sample_flags & NON_SYNC == 0);
        let shown = times.decode.saturating_add(shift);
        times.first_shown = times.first_shown.min(shown);
        times.last_end = times.last_end.max(shown.saturating_add(i64::from(duration)));
        times.decode = times.decode.saturating_add(i64::from(duration));
        times.bytes = times.bytes.saturating_add(u64::from(size));
    }
    Ok(())
}
