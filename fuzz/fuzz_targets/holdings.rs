//! Whatever bytes come as what a node holds, or as the request for it: no panic, and what is read writes back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vstack_api::holdings::{Page, Request};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(page) = Page::decode(bytes) {
        assert_eq!(page.encode(), bytes);
    }
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
});
