//! Calls of the uploader.

use futures_util::Stream;
use reqwest::{Body, Method, multipart};
use vstack_api::{
    metadata::RedundancyMode,
    uploader::{UploadAccepted, UploadStatus, UploaderHealth},
};

use crate::{ClientError, HttpClient};

/// Calls the uploader.
#[derive(Debug, Clone)]
pub struct UploaderClient {
    http: HttpClient,
    base: String,
}

impl UploaderClient {
    /// `url` is `http://host:port`.
    pub fn new(http: HttpClient, url: &str) -> Self {
        Self {
            http,
            base: url.trim_end_matches('/').to_owned(),
        }
    }

    /// `GET /health`.
    ///
    /// # Errors
    /// As any call.
    pub async fn health(&self) -> Result<UploaderHealth, ClientError> {
        let url = format!("{}/health", self.base);
        self.http.json(&url, self.http.request(Method::GET, &url)).await
    }

    /// `POST /upload`, streaming the file, to be kept as `mode` says, or as the policy does. No timeout: the file may be large; the caller watches `file`'s progress.
    ///
    /// # Errors
    /// As any call; 415 with the reason when it is not a video.
    pub async fn upload<S, E>(
        &self,
        file_name: &str,
        (title, mode): (Option<&str>, Option<RedundancyMode>),
        file: S,
        length: u64,
    ) -> Result<UploadAccepted, ClientError>
    where
        S: Stream<Item = Result<bytes::Bytes, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let url = format!("{}/upload", self.base);
        let part = multipart::Part::stream_with_length(Body::wrap_stream(file), length).file_name(file_name.to_owned());
        // The title first: the uploader then knows it before the bytes come.
        let mut form = multipart::Form::new();
        if let Some(title) = title {
            form = form.text("title", title.to_owned());
        }
        if let Some(mode) = mode {
            form = form.text("redundancy_mode", mode.as_str());
        }
        let request = self.http.transport().post(&url).multipart(form.part("video", part));
        self.http.json(&url, request).await
    }

    /// `GET /upload/status/{session}`.
    ///
    /// # Errors
    /// As any call.
    pub async fn status(&self, session: &str) -> Result<UploadStatus, ClientError> {
        let url = format!("{}/upload/status/{session}", self.base);
        self.http.json(&url, self.http.request(Method::GET, &url)).await
    }

    /// `DELETE /upload/{session}`: gives it up.
    ///
    /// # Errors
    /// As any call.
    pub async fn cancel(&self, session: &str) -> Result<UploadStatus, ClientError> {
        let url = format!("{}/upload/{session}", self.base);
        self.http.json(&url, self.http.request(Method::DELETE, &url)).await
    }
}
