//! Codec strings of RFC 6381 from sample entries.
//!
//! `avc1.PPCCLL` (ISO/IEC 14496-15), `vp09.PP.LL.DD` (VP9 in ISOBMFF 1.0), `av01.P.LLT.DD` (AV1 in ISOBMFF 1.2),
//! `mp4a.40.N` (ISO/IEC 14496-3 object types), `opus`, `fLaC`. Any other entry is named by its four characters.

use super::boxes::{Cursor, Fmp4Error, FourCc, child};

/// Bytes of a VisualSampleEntry before its boxes.
const VISUAL_ENTRY_LEN: usize = 78;
/// Bytes of an AudioSampleEntry (version 0) before its boxes.
const AUDIO_ENTRY_LEN: usize = 28;

/// The codec string of the sample entry `kind` with `payload`.
pub(super) fn codec_string(kind: FourCc, payload: &[u8]) -> Result<String, Fmp4Error> {
    let config = |skip: usize, name: &[u8; 4]| {
        let boxes = payload.get(skip..).ok_or(Fmp4Error::Truncated { inside: kind })?;
        child(kind, boxes, FourCc(*name))?.ok_or(Fmp4Error::Missing { kind: FourCc(*name) })
    };
    match &kind.0 {
        b"avc1" | b"avc3" => avc(kind, config(VISUAL_ENTRY_LEN, b"avcC")?),
        b"vp09" => vp9(config(VISUAL_ENTRY_LEN, b"vpcC")?),
        b"av01" => av1(config(VISUAL_ENTRY_LEN, b"av1C")?),
        b"mp4a" => mp4a(config(AUDIO_ENTRY_LEN, b"esds")?),
        b"Opus" => Ok("opus".to_owned()),
        _ => Ok(kind.to_string()),
    }
}

fn avc(kind: FourCc, payload: &[u8]) -> Result<String, Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"avcC"), payload);
    let [_version, profile, compatibility, level] = fields.take()?;
    Ok(format!("{kind}.{profile:02x}{compatibility:02x}{level:02x}"))
}

fn vp9(payload: &[u8]) -> Result<String, Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"vpcC"), payload);
    fields.version_flags()?;
    let [profile, level, depth] = fields.take()?;
    // Level 0 is "not known", which no browser takes; 4.1 is the highest every decoder of 1080p has.
    let level = if level == 0 { 41 } else { level };
    Ok(format!("vp09.{profile:02}.{level:02}.{:02}", depth >> 4))
}

fn av1(payload: &[u8]) -> Result<String, Fmp4Error> {
    let mut fields = Cursor::new(FourCc(*b"av1C"), payload);
    let [_marker, profile_level, flags] = fields.take()?;
    let tier = if flags & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (flags & 0x40 != 0, flags & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    Ok(format!(
        "av01.{}.{:02}{tier}.{depth:02}",
        profile_level >> 5,
        profile_level & 0x1f
    ))
}

/// Descriptor tags of ISO/IEC 14496-1.
const ES_DESCRIPTOR: u8 = 3;
const DECODER_CONFIG: u8 = 4;
const DECODER_SPECIFIC: u8 = 5;

fn mp4a(payload: &[u8]) -> Result<String, Fmp4Error> {
    let esds = FourCc(*b"esds");
    let mut fields = Cursor::new(esds, payload);
    fields.version_flags()?;
    let mut es = Cursor::new(esds, descriptor(&mut fields, ES_DESCRIPTOR)?);
    es.skip(2)?;
    let flags = es.u8()?;
    if flags & 0x80 != 0 {
        es.skip(2)?;
    }
    if flags & 0x40 != 0 {
        let url = es.u8()?;
        es.skip(usize::from(url))?;
    }
    if flags & 0x20 != 0 {
        es.skip(2)?;
    }
    let mut config = Cursor::new(esds, descriptor(&mut es, DECODER_CONFIG)?);
    let object = config.u8()?;
    if object != 0x40 {
        return Ok(format!("mp4a.{object:02x}"));
    }
    config.skip(12)?;
    let mut specific = Cursor::new(esds, descriptor(&mut config, DECODER_SPECIFIC)?);
    let first = specific.u8()?;
    let audio_object = match first >> 3 {
        31 => 32 + ((first & 7) << 3 | specific.u8()? >> 5),
        object => object,
    };
    Ok(format!("mp4a.40.{audio_object}"))
}

/// The payload of the next descriptor, which must have `tag`. Its length takes up to four bytes of seven bits.
fn descriptor<'a>(fields: &mut Cursor<'a>, tag: u8) -> Result<&'a [u8], Fmp4Error> {
    if fields.u8()? != tag {
        return Err(Fmp4Error::Inconsistent {
            what: "descriptors of `esds` are out of order",
        });
    }
    let mut length = 0_usize;
    for _ in 0..4 {
        let byte = fields.u8()?;
        length = length << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    let payload = fields.rest().get(..length).ok_or(Fmp4Error::Truncated {
        inside: FourCc(*b"esds"),
    })?;
    fields.skip(length)?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(skip: usize, config: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; skip];
        bytes.extend_from_slice(&u32::try_from(payload.len() + 8).unwrap().to_be_bytes());
        bytes.extend_from_slice(config);
        bytes.extend_from_slice(payload);
        bytes
    }

    /// An `esds` with an MPEG-4 audio object, lengths written in one byte.
    fn esds(object: u8, specific: &[u8]) -> Vec<u8> {
        let length = |n: usize| u8::try_from(n).unwrap();
        let mut config = vec![object];
        config.extend_from_slice(&[0; 12]);
        config.extend_from_slice(&[5, length(specific.len())]);
        config.extend_from_slice(specific);
        let mut bytes = vec![
            0,
            0,
            0,
            0,
            3,
            length(config.len() + 5),
            0,
            1,
            0,
            4,
            length(config.len()),
        ];
        bytes.extend_from_slice(&config);
        bytes
    }

    #[test]
    fn codec_strings_follow_their_registrations() {
        let table = [
            (*b"avc1", entry(78, b"avcC", &[1, 0x64, 0, 0x28, 0xff]), "avc1.640028"),
            (
                *b"vp09",
                entry(78, b"vpcC", &[1, 0, 0, 0, 0, 31, 0x82, 1, 1, 1, 0, 0]),
                "vp09.00.31.08",
            ),
            (
                *b"vp09",
                entry(78, b"vpcC", &[1, 0, 0, 0, 2, 0, 0xa2, 1, 1, 1, 0, 0]),
                "vp09.02.41.10",
            ),
            (*b"av01", entry(78, b"av1C", &[0x81, 0x08, 0x0c, 0]), "av01.0.08M.08"),
            (*b"av01", entry(78, b"av1C", &[0x81, 0x25, 0xcc, 0]), "av01.1.05H.10"),
            (*b"mp4a", entry(28, b"esds", &esds(0x40, &[0x12, 0x10])), "mp4a.40.2"),
            (*b"mp4a", entry(28, b"esds", &esds(0x40, &[0x2b, 0x10])), "mp4a.40.5"),
            (*b"mp4a", entry(28, b"esds", &esds(0x40, &[0xf9, 0x40])), "mp4a.40.42"),
            (*b"mp4a", entry(28, b"esds", &esds(0x6b, &[])), "mp4a.6b"),
            (*b"Opus", entry(28, b"dOps", &[]), "opus"),
            (*b"fLaC", entry(28, b"dfLa", &[]), "fLaC"),
        ];
        for (kind, payload, expected) in table {
            assert_eq!(
                codec_string(FourCc(kind), &payload).as_deref(),
                Ok(expected),
                "{}",
                FourCc(kind)
            );
        }
        assert!(codec_string(FourCc(*b"avc1"), &[0; 10]).is_err());
        assert!(codec_string(FourCc(*b"avc1"), &[0; 78]).is_err());
    }
}
