//! Whatever bytes come as a paxos request, reply, register or placement: no panic, and what is read writes back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vstack_chunkpaxos::{Placement, Register, Reply, Request};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(reply) = Reply::decode(bytes) {
        assert_eq!(reply.encode(), bytes);
    }
    if let Ok(register) = Register::decode(bytes) {
        assert_eq!(register.encode(), bytes);
    }
    if let Ok(placement) = Placement::decode(bytes) {
        assert_eq!(placement.encode(), bytes);
    }
});
