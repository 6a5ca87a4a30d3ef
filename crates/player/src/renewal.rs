//! When a newer manifest is asked for: by one call at a time, and by the `ETag` of the one at hand. Pure.

/// Of one video that is being played.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// Of the manifest at hand; none where it came without.
    pub(crate) etag: Option<String>,
    call: Call,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    None,
    UnderWay,
    /// Something was missed since it was made: what it brings may have been said before.
    UnderWayAndOneMore,
}

impl Renewal {
    /// `etag` is that of the manifest with which playback begins.
    pub(crate) fn new(etag: Option<String>) -> Self {
        Self { etag, call: Call::None }
    }

    /// A newer one is wanted, because something is missed by the one at hand or only because that is old. Whether it is
    /// to be asked for now.
    pub(crate) fn want(&mut self, is_missed: bool) -> bool {
        if self.call == Call::None {
            self.call = Call::UnderWay;
            return true;
        }
        if is_missed {
            self.call = Call::UnderWayAndOneMore;
        }
        false
    }

    /// The call is over. Whether another is to be made now.
    pub(crate) fn ended(&mut self) -> bool {
        let is_one_more = self.call == Call::UnderWayAndOneMore;
        self.call = if is_one_more { Call::UnderWay } else { Call::None };
        is_one_more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_is_made_at_a_time() {
        let mut renewal = Renewal::new(None);
        assert!(renewal.want(false));
        // That the one at hand is old is what the call is for already.
        assert!(!renewal.want(false) && !renewal.ended());
        assert!(renewal.want(true));
        // However often something is missed meanwhile, that is one more call, after this one.
        assert!(!renewal.want(true) && !renewal.want(true) && !renewal.want(false));
        assert!(renewal.ended());
        assert!(!renewal.want(false) && !renewal.ended());
        assert!(renewal.want(false));
    }
}
