//! A first video for an empty library, so that there is something to watch.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use tokio_util::io::ReaderStream;
use vstack_api::uploader::UploadStage;
use vstack_client::{HttpClient, MetadataClient, Timeouts, UploaderClient};

use super::plan::Urls;
use crate::output::say;

/// The sample has to be made, cut and stored; on a slow machine that takes a while.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Makes and uploads the sample unless there are videos.
pub async fn load_if_empty(urls: &Urls, data: &Path) -> anyhow::Result<()> {
    let http = HttpClient::new(None, Timeouts::default())?;
    let metadata = MetadataClient::new(http.clone(), &urls.metadata);
    if !metadata.videos(&[("limit", "1".to_owned())]).await?.is_empty() {
        return Ok(());
    }
    say!("The library is empty: making a sample video");
    let path = data.join("sample.mp4");
    let loaded = tokio::time::timeout(TIMEOUT, load(&http, urls, &path)).await;
    let _gone = std::fs::remove_file(&path);
    let video = loaded.context("it took longer than five minutes")??;
    say!("The sample video is at {}/watch/{video}", urls.web_public);
    Ok(())
}

async fn load(http: &HttpClient, urls: &Urls, path: &Path) -> anyhow::Result<vstack_types::VideoId> {
    vstack_media::sample::make_sample(path).await?;
    let uploader = UploaderClient::new(http.clone(), &urls.uploader);
    let file = tokio::fs::File::open(path).await?;
    let length = file.metadata().await?.len();
    let accepted = uploader
        .upload("sample.mp4", (Some("Sample"), None), ReaderStream::new(file), length)
        .await?;
    loop {
        let status = uploader.status(&accepted.upload_session_id).await?;
        match status.status {
            UploadStage::Completed => return Ok(status.video_id),
            UploadStage::Failed => bail!("{}", status.error.unwrap_or_else(|| "the upload failed".to_owned())),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
