//! How a node is named here: by the URL under which its chunks are fetched.

use std::{fmt, sync::Arc};

/// The base URL of a node, without a slash at its end. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeUrl(Arc<str>);

impl NodeUrl {
    /// Names the node at `url`; slashes at the end are dropped, so that one node has one name.
    pub fn new(url: &str) -> Self {
        Self(url.trim_end_matches('/').into())
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
