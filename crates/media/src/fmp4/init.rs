//! The init segment: `ftyp` + `moov` with the tracks' facts.

use bytes::Bytes;

use super::{
    boxes::{Cursor, Fmp4Error, FourCc, child, children, required},
    codec::codec_string,
};

/// Most tracks in a file of ours; the ingest maps at most two.
const TRACKS_MAX: usize = 16;

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Anything else.
    Other,
}

/// One track of the init segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// As fragments name it.
    pub id: u32,
    /// What it carries.
    pub kind: TrackKind,
    /// Units of its times in a second; never 0.
    pub timescale: u32,
    /// RFC 6381.
    pub codec: String,
    /// Pixels as shown, after rotation; 0 for sound.
    pub width: u32,
    /// Pixels as shown, after rotation; 0 for sound.
    pub height: u32,
    /// Media time shown at time 0, in the track's units: what its one edit says, else 0.
    pub(super) media_time: i64,
    pub(super) defaults: SampleDefaults,
}

/// What samples are like unless their fragment says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SampleDefaults {
    pub duration: u32,
    pub size: u32,
    pub flags: u32,
}

/// What a decoder needs before any fragment.
#[derive(Debug, Clone, PartialEq)]
pub struct InitSegment {
    /// The bytes, as they are to be stored.
    pub bytes: Bytes,
    /// In the file's order, at least one.
    pub tracks: Vec<Track>,
}

impl InitSegment {
    /// Codec strings of video and sound, video first, for a `codecs` parameter.
    pub fn codecs(&self) -> String {
        let of = |kind| self.tracks.iter().filter(move |track| track.kind == kind);
        let codecs: Vec<_> = of(TrackKind::Video)
            .chain(of(TrackKind::Audio))
            .map(|track| track.codec.as_str())
            .collect();
        codecs.join(",")
    }

    /// The video track.
    pub fn video(&self) -> Option<&Track> {
        self.tracks.iter().find(|track| track.kind == TrackKind::Video)
    }

    /// Reads `bytes`, which end with the `moov` whose payload is `moov`.
    pub(super) fn parse(bytes: Bytes, moov: &[u8]) -> Result<Self, Fmp4Error> {
        let kind = FourCc(*b"moov");
        let mut tracks = Vec::new();
        for entry in children(kind, moov) {
            let (kind, payload) = entry?;
            if kind == FourCc(*b"trak") {
                if tracks.len() == TRACKS_MAX {
                    return Err(Fmp4Error::TooMany {
                        what: "tracks",
                        max: TRACKS_MAX,
                    });
                }
                tracks.push(track(payload)?);
            }
        }
        if tracks.is_empty() {
            return Err(Fmp4Error::Missing { kind: FourCc(*b"trak") });
        }
        if let Some(mvex) = child(kind, moov, FourCc(*b"mvex"))? {
            read_defaults(mvex, &mut tracks)?;
        }
        Ok(Self { bytes, tracks })
    }
}

fn track(trak: &[u8]) -> Result<Track, Fmp4Error> {
    let kind = FourCc(*b"trak");
    let (id, width, height) = tkhd(required(kind, trak, FourCc(*b"tkhd"))?)?;
    let mdia = required(kind, trak, FourCc(*b"mdia"))?;
    let mdia_kind = FourCc(*b"mdia");
    let timescale = mdhd(required(mdia_kind, mdia, FourCc(*b"mdhd"))?)?;
    let handler = hdlr(required(mdia_kind, mdia, FourCc(*b"hdlr"))?)?;
    let minf = required(mdia_kind, mdia, FourCc(*b"minf"))?;
    let stbl = required(FourCc(*b"minf"), minf, FourCc(*b"stbl"))?;
    let codec = stsd(required(FourCc(*b"stbl"), stbl, FourCc(*b"stsd"))?)?;
    let media_time = match child(kind, trak, FourCc(*b"edts"))? {
        Some(edts) => child(FourCc(*b"edts"), edts, FourCc(*b"elst"))?.map_or(Ok(0), elst)?,
        None => 0,
    };
    let (width, height) = if handler == TrackKind::Video {
        (width, height)
    } else {
        (0, 0)
    };
    let defaults = SampleDefaults::default();
    Ok(Track {
        id,
        kind: handler,
        timescale,
        codec,
        width,
        height,
        media_time,
        defaults,
    })
}

/// Track id, and size as shown: the matrix turns it by a quarter when its diagonal is zero.
fn tkhd(payload: &[u8]) -> Result<(u32, u32, u32), Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"tkhd"), payload);
    let (version, _) = fields.version_flags()?;
    fields.skip(if version == 1 { 16 } else { 8 })?;
    let id = fields.u32()?;
    fields.skip(4 + if version == 1 { 8 } else { 4 } + 16)?;
    let mut matrix = [0; 9];
    for entry in &mut matrix {
        *entry = fields.i32()?;
    }
    let (width, height) = (fields.u32()? >> 16, fields.u32()? >> 16);
    let turned = matrix[0] == 0 && matrix[4] == 0 && matrix[1] != 0;
    Ok(if turned {
        (id, height, width)
    } else {
        (id, width, height)
    })
}

fn mdhd(payload: &[u8]) -> Result<u32, Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"mdhd"), payload);
    let (version, _) = fields.version_flags()?;
    fields.skip(if version == 1 { 16 } else { 8 })?;
    match fields.u32()? {
        0 => Err(Fmp4Error::Inconsistent {
            what: "a track has a timescale of 0",
        }),
        timescale => Ok(timescale),
    }
}

fn hdlr(payload: &[u8]) -> Result<TrackKind, Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"hdlr"), payload);
    fields.skip(8)?;
    Ok(match &fields.take::<4>()? {
        b"vide" => TrackKind::Video,
        b"soun" => TrackKind::Audio,
        _ => TrackKind::Other,
    })
}

fn stsd(payload: &[u8]) -> Result<String, Fmp4Error> {
    let kind = FourCc(*b"stsd");
    let mut fields = Cursor::new(kind, payload);
    fields.version_flags()?;
    fields.u32()?;
    let (entry, payload) = children(kind, fields.rest())
        .next()
        .ok_or(Fmp4Error::Missing { kind })??;
    codec_string(entry, payload)
}

/// The media time of the first edit that is not empty. The recipe makes exactly one.
fn elst(payload: &[u8]) -> Result<i64, Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"elst"), payload);
    let (version, _) = fields.version_flags()?;
    let count = fields.u32()?;
    for _ in 0..count {
        let media_time = if version == 1 {
            fields.u64()?;
            fields.i64()?
        } else {
            fields.u32()?;
            i64::from(fields.i32()?)
        };
        fields.u32()?;
        if media_time >= 0 {
            return Ok(media_time);
        }
    }
    Ok(0)
}

fn read_defaults(mvex: &[u8], tracks: &mut [Track]) -> Result<(), Fmp4Error> {
    for entry in children(FourCc(*b"mvex"), mvex) {
        let (kind, payload) = entry?;
        if kind != FourCc(*b"trex") {
            continue;
        }
        let mut fields = Cursor::new(kind, payload);
        fields.version_flags()?;
        let id = fields.u32()?;
        fields.u32()?;
        let defaults = SampleDefaults {
            duration: fields.u32()?,
            size: fields.u32()?,
            flags: fields.u32()?,
        };
        if let Some(track) = tracks.iter_mut().find(|track| track.id == id) {
            track.defaults = defaults;
        }
    }
    Ok(())
}
