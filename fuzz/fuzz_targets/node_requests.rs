//! Requests of any parts to a node: an answer of HTTP that is not the node's own fault, or the end.
#![no_main]

#[path = "../../crates/node/tests/any_bytes/mod.rs"]
mod any_bytes;

use std::cell::RefCell;

use any_bytes::{Served, request_of};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SERVED: RefCell<Served> = RefCell::new(Served::new());
}

fuzz_target!(|bytes: &[u8]| SERVED.with_borrow_mut(|served| served.try_bytes(&request_of(bytes))));
