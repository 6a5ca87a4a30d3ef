//! The fragmented MP4 reader on any bytes, in steps of any size. The first two bytes give the step.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vstack_media::{
    cutter::{CutLimits, Cutter},
    fmp4::{Event, Reader},
};

fuzz_target!(|data: &[u8]| {
    let Some((step, stream)) = data.split_first_chunk::<2>() else { return };
    let step = usize::from(u16::from_le_bytes(*step)).max(1);
    let mut reader = Reader::new();
    let mut cutter = Cutter::new(CutLimits { chunk_bytes_max: 1000, nominal_sec: 10.0 });
    for part in stream.chunks(step) {
        reader.push(part);
        loop {
            match reader.next_event() {
                Ok(Some(Event::Fragment(fragment))) => {
                    assert!(fragment.start.is_finite() && fragment.end.is_finite());
                    assert!(cutter.push(fragment).iter().all(|chunk| chunk.bytes.len() <= 1000));
                }
                Ok(Some(Event::Init(_))) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = reader.finish();
    let _ = cutter.finish();
});
