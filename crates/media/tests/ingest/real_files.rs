//! Real files, good and bad: good ones are cut, bad ones refused or failed with a reason.

use vstack_media::verdict::VideoPlan;

use crate::support::{check_chunks, packet_hashes, shared_media, take, times};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Copied, with about this many seconds.
    Copied(f64),
    /// Transcoded, with about this many seconds.
    Transcoded(f64),
    /// Taken, with a warning that has these words.
    Warned(&'static str),
    /// Not taken, for a reason that has these words.
    Not(&'static str),
}

use Fate::{Copied, Not, Transcoded, Warned};

const FILES: [(&str, Fate); 34] = [
    ("bbb_360p_60s_h264_aac.mp4", Copied(60.2)),
    ("bbb_1080p_10M_10s_moov_at_end.mp4", Copied(10.5)),
    ("bbb_10s_av1_opus.webm", Copied(10.0)),
    ("bbb_12s_h264_aac_remux.flv", Copied(22.2)),
    ("audio_starts_1500ms_late.mp4", Copied(12.1)),
    ("firstpts_10s_h264.mp4", Copied(4.0)),
    ("synthetic_single_frame_over_2MiB.mp4", Copied(0.2)),
    ("phone_vfr_rot180_h264_aac.mp4", Copied(2.4)),
    ("one_frame.mp4", Copied(0.04)),
    ("no_duration_vp9_opus.webm", Copied(4.9)),
    ("spaces and (paren) 'quote' \"dq\" %d %03d.mp4", Copied(0.04)),
    ("h264_without_stss.mp4", Copied(1.0)),
    ("stream_copy_trim_editlist.mp4", Transcoded(12.2)),
    ("h264_aac_in.avi", Transcoded(6.1)),
    ("sorenson_h263_mp3.flv", Transcoded(8.0)),
    ("vp9_profile2_10bit.webm", Transcoded(3.0)),
    ("odd_dims_yuv444.mp4", Transcoded(5.0)),
    ("bad_truncated_40pct_bbb.mp4", Warned("of 60.2 s could be read")),
    ("bad_missing_stsd_audio.mp4", Warned("left out")),
    ("single_keyframe_60s.mp4", Warned("seeking will be slow")),
    ("fragmented_bogus_duration_143165s.mp4", Copied(1.0)),
    ("bad_zero_length.mp4", Not("not a video in MP4")),
    ("bad_text_renamed.mp4", Not("not a video in MP4")),
    ("bad_jpeg_renamed.mp4", Not("not a readable video")),
    ("bad_truncated_moov_missing.mp4", Not("moov")),
    ("audio_only.mp4", Not("no video track")),
    ("unsupported_vvc.mp4", Not("codec is not supported")),
    ("bad_vp9_bitstream.webm", Not("")),
    ("bad_zip_renamed.mkv", Not("not a readable video")),
    ("bad_moov_fuzzed.mp4", Not("")),
    ("encrypted_clearkey.mp4", Not("")),
    ("bad_random_bytes.mp4", Not("not a video")),
    ("attack_hls_file_passwd.mp4", Not("not a readable video")),
    ("bbb_1080p_mpeg2_mp2.ts", Not("not a readable video")),
];

#[tokio::test]
async fn real_files_are_cut_or_refused_with_a_reason() {
    let Some(media) = shared_media() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (name, fate) in FILES {
        let taken = take(&media.join(name)).await;
        let as_wished = match (&taken, fate) {
            (Err(error), Not(words)) => error.to_string().contains(words),
            (Ok(taken), Copied(seconds) | Transcoded(seconds)) => {
                check_chunks(taken);
                let copied = taken.plan.video == VideoPlan::Copy;
                let produced = taken.summary.totals.duration_sec;
                copied == matches!(fate, Copied(_)) && (produced - seconds).abs() < 0.3
            }
            (Ok(taken), Warned(words)) => {
                check_chunks(taken);
                taken
                    .plan
                    .warnings
                    .iter()
                    .chain(&taken.summary.warnings)
                    .any(|warning| warning.contains(words))
            }
            _ => false,
        };
        if !as_wished {
            let got = taken.map(|taken| (taken.plan.video, taken.plan.warnings, taken.summary));
            wrong.push(format!("{name}: wanted {fate:?}, got {got:?}"));
            continue;
        }
        if let (Ok(taken), Copied(_)) = (taken, fate) {
            let out = dir.path().join("out.mp4");
            std::fs::write(&out, taken.file()).unwrap();
            let source = media.join(name);
            let hashes = packet_hashes(&source, "v:0");
            if hashes.is_empty() || hashes != packet_hashes(&out, "v:0") {
                wrong.push(format!("{name}: video packets differ"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn late_sound_stays_late() {
    let Some(media) = shared_media() else { return };
    let taken = take(&media.join("audio_starts_1500ms_late.mp4")).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.mp4");
    std::fs::write(&out, taken.file()).unwrap();
    let lag = times(&out, "a:0")[0] - times(&out, "v:0")[0];
    assert!((lag - 1.5).abs() < 0.1, "sound starts {lag} s after the video");
}
