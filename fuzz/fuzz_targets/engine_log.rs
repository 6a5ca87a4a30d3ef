//! A small log in which any bytes are others: it is opened or refused, and nothing is served that is not right.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| vstack_engine::fuzzing::log(bytes));
