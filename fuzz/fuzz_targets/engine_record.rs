//! Header, id and register of one record, whatever the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| vstack_engine::fuzzing::record(bytes));
