//! What can be set.

use std::path::PathBuf;

use vstack_types::limits::{CHUNK_BYTES_MAX, SEGMENT_SECONDS_NOMINAL};

/// Settings of the uploader.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// What every service has.
    #[command(flatten)]
    pub common: vstack_service::Common,
    /// Port to listen on; 0 takes any free one.
    #[arg(long, env = "PORT", default_value_t = 8084, value_name = "PORT")]
    pub port: u16,
    /// Where the metadata service is; a comma-separated list when there are several.
    #[arg(
        long,
        env = "METADATA_SERVICE_URL", value_parser = vstack_service::settings::urls,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub metadata_service_url: String,
    /// Most bytes in a chunk.
    #[arg(long, env = "CHUNK_SIZE", default_value_t = default_chunk_size(), value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(65_536..=i64::from(default_chunk_size())))]
    pub chunk_size: u32,
    /// Nominal length of a segment, in seconds.
    #[arg(long, env = "CHUNK_DURATION", default_value_t = SEGMENT_SECONDS_NOMINAL, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=60))]
    pub chunk_duration: u32,
    /// Uploads processed at a time; more wait.
    #[arg(long, env = "MAX_CONCURRENT_UPLOADS", default_value_t = 5, value_name = "NUMBER",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_concurrent_uploads: u16,
    /// Where files are kept while they are worked on; no other uploader may use it.
    #[arg(long, env = "TEMP_DIR", default_value = "/tmp/vstack-uploads", value_name = "DIR")]
    pub temp_dir: PathBuf,
    /// Largest file taken, in bytes.
    #[arg(long, env = "MAX_UPLOAD_BYTES", default_value_t = 64 << 30, value_name = "BYTES")]
    pub max_upload_bytes: u64,
    /// Space on the disk of TEMP_DIR that uploads leave free, in bytes.
    #[arg(long, env = "MIN_FREE_BYTES", default_value_t = 256 << 20, value_name = "BYTES")]
    pub min_free_bytes: u64,
    /// Pages of these origins may call the uploader; comma-separated.
    #[arg(
        long,
        env = "CORS_ORIGINS", value_parser = vstack_service::settings::origin,
        value_delimiter = ',',
        value_name = "ORIGINS",
        default_value = "http://127.0.0.1:8085,http://localhost:8085"
    )]
    pub cors_origins: Vec<String>,
}

#[expect(clippy::cast_possible_truncation, reason = "2 MiB, as asserted")]
const fn default_chunk_size() -> u32 {
    const { assert!(CHUNK_BYTES_MAX <= u32::MAX as usize) };
    CHUNK_BYTES_MAX as u32
}
