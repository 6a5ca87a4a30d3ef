//! The list of a commit record, whatever the bytes: what is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| vstack_engine::fuzzing::commit_list(bytes));
