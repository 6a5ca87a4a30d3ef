//! A manifest as what players ask for: segments, playlists, one virtual file. Pure: it knows lengths and times, and
//! leaves bytes and HTTP to others.

use std::{collections::HashMap, ops::Range};

use vstack_api::metadata::{Manifest, ManifestChunk, ManifestInit, VideoStatus};
use vstack_media::{
    playlist::{self, ChunkTime, Rendition, Segment},
    virtual_mp4::{Piece, Source, VirtualMp4},
};
use vstack_types::{ByteRange, ChunkId, Digest, DigestBuilder};

/// Why a video cannot be presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotPlayable {
    /// Its chunks are still coming.
    #[error("the video is still being uploaded; try again when it is active")]
    Uploading,
    /// It will never be whole.
    #[error("the upload of this video failed; upload it again")]
    Failed,
    /// It was taken out.
    #[error("the video was deleted")]
    Deleted,
    /// Nothing in it.
    #[error("the video has no chunks")]
    Empty,
    /// Stored by something else than our uploader.
    #[error("the video has no init segment, so it cannot be streamed; download it instead")]
    NotCmaf,
    /// A field that cannot be.
    #[error("the manifest holds a checksum that is no SHA-256")]
    BadChecksum,
}

/// An active video, ready to be served.
#[derive(Debug)]
pub(crate) struct Presentation {
    manifest: Manifest,
    segments: Vec<Segment>,
    file: VirtualMp4,
    places: HashMap<ChunkId, Source>,
    digest: Digest,
}

/// One stored thing of a video.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored<'a> {
    Init(&'a ManifestInit),
    Chunk(&'a ManifestChunk),
}

impl Presentation {
    /// # Errors
    /// When the video is not active or its manifest makes no sense.
    pub(crate) fn new(manifest: Manifest) -> Result<Self, NotPlayable> {
        match manifest.status {
            VideoStatus::Active => {}
            VideoStatus::Uploading => return Err(NotPlayable::Uploading),
            VideoStatus::Failed => return Err(NotPlayable::Failed),
            VideoStatus::Deleted => return Err(NotPlayable::Deleted),
        }
        if manifest.chunks.is_empty() {
            return Err(NotPlayable::Empty);
        }
        let segments = playlist::segments(manifest.chunks.iter().map(|chunk| ChunkTime {
            segment: chunk.segment,
            start_sec: chunk.start_sec,
            duration_sec: chunk.duration_sec,
        }));
        let init_len = manifest.init.as_ref().map_or(0, |init| init.size_bytes);
        let file = VirtualMp4::new(init_len, manifest.chunks.iter().map(|chunk| chunk.size_bytes));
        let digest = content_digest(&manifest)?;
        let chunks = manifest
            .chunks
            .iter()
            .enumerate()
            .map(|(at, chunk)| (chunk.chunk_id.clone(), Source::Chunk(at)));
        let init = manifest.init.iter().map(|init| (init.chunk_id.clone(), Source::Init));
        let places = init.chain(chunks).collect();
        Ok(Self {
            segments,
            file,
            places,
            digest,
            manifest,
        })
    }

    pub(crate) fn title(&self) -> &str {
        &self.manifest.title
    }

    /// Names the bytes of the whole. Unlike the manifest's version it stays when chunks only move, so that a download
    /// goes on over a migration.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// What `source` is; none when there is no such thing.
    pub(crate) fn stored(&self, source: Source) -> Option<Stored<'_>> {
        match source {
            Source::Init => self.manifest.init.as_ref().map(Stored::Init),
            Source::Chunk(at) => self.manifest.chunks.get(at).map(Stored::Chunk),
        }
    }

    /// Which part of the video is stored as `chunk`.
    pub(crate) fn place(&self, chunk: &ChunkId) -> Option<Source> {
        self.places.get(chunk).copied()
    }

    /// The init segment and all chunks as one file.
    pub(crate) fn file(&self) -> &VirtualMp4 {
        &self.file
    }

    /// The bytes of the virtual file that are segment `number`.
    pub(crate) fn segment(&self, number: u32) -> Option<ByteRange> {
        let at = self
            .segments
            .binary_search_by_key(&number, |segment| segment.index)
            .ok()?;
        self.span(self.segments[at].chunks.clone())
    }

    /// The bytes of the virtual file that are the init segment.
    pub(crate) fn init(&self) -> Option<ByteRange> {
        let len = self.manifest.init.as_ref()?.size_bytes;
        (len > 0).then(|| ByteRange { start: 0, end: len - 1 })
    }

    /// `master.m3u8`.
    pub(crate) fn master_playlist(&self) -> Result<String, NotPlayable> {
        self.init().ok_or(NotPlayable::NotCmaf)?;
        let rates = self
            .segments
            .iter()
            .map(|segment| (self.bytes_of(segment), segment.duration_sec));
        // A quote would end the attribute early; no codec has one.
        let codecs = self.manifest.codecs.replace(['"', '\r', '\n'], "");
        let rendition = Rendition::new(rates, codecs, self.manifest.width, self.manifest.height);
        Ok(playlist::master_playlist(&rendition, "media.m3u8"))
    }

    /// `media.m3u8`.
    pub(crate) fn media_playlist(&self) -> Result<String, NotPlayable> {
        self.init().ok_or(NotPlayable::NotCmaf)?;
        Ok(playlist::media_playlist(&self.segments, "init.mp4", |segment| {
            format!("segment-{}.m4s", segment.index)
        }))
    }

    fn bytes_of(&self, segment: &Segment) -> u64 {
        self.manifest.chunks[segment.chunks.clone()]
            .iter()
            .map(|chunk| chunk.size_bytes)
            .sum()
    }

    fn span(&self, chunks: Range<usize>) -> Option<ByteRange> {
        let init_len = self.manifest.init.as_ref().map_or(0, |init| init.size_bytes);
        let bytes = |range: &[ManifestChunk]| range.iter().map(|chunk| chunk.size_bytes).sum::<u64>();
        let start = init_len + bytes(&self.manifest.chunks[..chunks.start]);
        let len = bytes(&self.manifest.chunks[chunks]);
        (len > 0).then(|| ByteRange {
            start,
            end: start + len - 1,
        })
    }
}

impl Stored<'_> {
    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::Init(init) => init.size_bytes,
            Self::Chunk(chunk) => chunk.size_bytes,
        }
    }

    /// `sha256:<hex>` or bare hex.
    pub(crate) fn checksum(&self) -> &str {
        match self {
            Self::Init(init) => &init.checksum,
            Self::Chunk(chunk) => &chunk.checksum,
        }
    }
}

/// The pieces of `range` of the virtual file, in order.
pub(crate) fn pieces(presentation: &Presentation, range: ByteRange) -> Vec<Piece> {
    presentation.file().pieces(range).collect()
}

fn content_digest(manifest: &Manifest) -> Result<Digest, NotPlayable> {
    let mut builder = DigestBuilder::default();
    let init = manifest.init.iter().map(|init| &init.checksum);
    for checksum in init.chain(manifest.chunks.iter().map(|chunk| &chunk.checksum)) {
        let digest: Digest = checksum.parse().map_err(|_| NotPlayable::BadChecksum)?;
        builder.update(digest.as_bytes());
    }
    Ok(builder.finish())
}
