//! Settings of `vstack web`.

use vstack_service::Common;

/// How the web service runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Address, logs, secret.
    #[command(flatten)]
    pub common: Common,
    /// Port to listen on, before `--port`.
    #[arg(long, env = "DEMO_PORT", value_name = "PORT")]
    pub demo_port: Option<u16>,
    /// Port to listen on; 0 takes any free one.
    #[arg(long, env = "PORT", default_value_t = 8085)]
    pub port: u16,
    /// Where the metadata service is; several are separated by commas.
    #[arg(
        long,
        env = "METADATA_SERVICE_URL", value_parser = vstack_service::settings::urls,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub metadata_service_url: String,
    /// Where the uploader is.
    #[arg(
        long,
        env = "UPLOADER_SERVICE_URL", value_parser = vstack_service::settings::url,
        default_value = "http://127.0.0.1:8084",
        value_name = "URL"
    )]
    pub uploader_service_url: String,
    /// Most bytes of videos on their way to readers at a time; others are told to come again.
    #[arg(long, env = "GATEWAY_BYTES_MAX", default_value_t = 64 << 20, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(4 << 20..))]
    pub gateway_bytes_max: u64,
    /// Where the smart client's dashboard is; without it nobody asks for its health.
    #[arg(long, env = "CLIENT_DASHBOARD_URL", value_parser = vstack_service::settings::url, value_name = "URL")]
    pub client_dashboard_url: Option<String>,
    /// A storage node to ask for its health, besides what the metadata service knows.
    #[arg(long, env = "STORAGE_NODE_1_URL", value_parser = vstack_service::settings::url, value_name = "URL")]
    pub storage_node_1_url: Option<String>,
    /// A second one.
    #[arg(long, env = "STORAGE_NODE_2_URL", value_parser = vstack_service::settings::url, value_name = "URL")]
    pub storage_node_2_url: Option<String>,
    /// A third one.
    #[arg(long, env = "STORAGE_NODE_3_URL", value_parser = vstack_service::settings::url, value_name = "URL")]
    pub storage_node_3_url: Option<String>,
}

impl Settings {
    /// `DEMO_PORT` when it is given, `PORT` otherwise.
    pub(crate) fn listen_port(&self) -> u16 {
        self.demo_port.unwrap_or(self.port)
    }

    /// The services whose health is shown, by name.
    pub(crate) fn watched(&self) -> Vec<(&'static str, String)> {
        // Of several metadata services any one that answers will do; the first stands for them.
        let metadata = self.metadata_service_url.split(',').next().unwrap_or_default();
        let optional = [
            ("smart-client", &self.client_dashboard_url),
            ("storage-node-1", &self.storage_node_1_url),
            ("storage-node-2", &self.storage_node_2_url),
            ("storage-node-3", &self.storage_node_3_url),
        ];
        let given = optional
            .into_iter()
            .filter_map(|(name, url)| Some((name, url.as_deref()?)));
        [
            ("metadata-service", metadata),
            ("uploader-service", self.uploader_service_url.as_str()),
        ]
        .into_iter()
        .chain(given)
        .map(|(name, url)| (name, url.trim().trim_end_matches('/').to_owned()))
        .filter(|(_, url)| !url.is_empty())
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(args: &[&str]) -> Settings {
        let command = Settings::augment_args(clap::Command::new("web").no_binary_name(true));
        Settings::from_arg_matches(&command.get_matches_from(args)).unwrap()
    }

    #[test]
    fn the_demo_port_comes_first() {
        assert_eq!(parse(&["--port", "1"]).listen_port(), 1);
        assert_eq!(parse(&["--port", "1", "--demo-port", "2"]).listen_port(), 2);
    }

    #[test]
    fn what_is_not_given_is_not_watched() {
        let settings = parse(&[
            "--metadata-service-url",
            "http://a:1/, http://b:1",
            "--uploader-service-url",
            "http://u:2",
            "--storage-node-2-url",
            "http://n:3/",
        ]);
        let watched = settings.watched();
        let expected = [
            ("metadata-service", "http://a:1"),
            ("uploader-service", "http://u:2"),
            ("storage-node-2", "http://n:3"),
        ];
        assert_eq!(watched, expected.map(|(name, url)| (name, url.to_owned())));
    }
}
