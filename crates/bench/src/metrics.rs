//! Reads the request counters of a service's `/metrics`.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

/// Requests answered so far, by method and route.
pub type Requests = BTreeMap<(String, String), u64>;

/// Asks a service.
pub async fn requests(http: &reqwest::Client, url: &str) -> anyhow::Result<Requests> {
    let answer = http
        .get(format!("{url}/metrics"))
        .timeout(std::time::Duration::from_secs(5))
        .send()
        .await?;
    ensure!(
        answer.status().is_success(),
        "{url}/metrics answered {}",
        answer.status()
    );
    Ok(parse(&answer.text().await.context("no text from /metrics")?))
}

/// What came after `before`; counters of a restarted service start again.
pub fn since(before: &Requests, now: &Requests) -> Requests {
    let new = now
        .iter()
        .map(|(key, count)| (key.clone(), count.saturating_sub(before.get(key).copied().unwrap_or(0))));
    new.filter(|(_, count)| *count > 0).collect()
}

/// Lines `vstack_http_requests_total{method="PUT",route="/chunk/{id}",status="201"} 5`; statuses are added up.
fn parse(text: &str) -> Requests {
    let mut requests = Requests::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("vstack_http_requests_total{") else {
            continue;
        };
        let Some((labels, count)) = rest.rsplit_once("} ") else {
            continue;
        };
        if let (Some(method), Some(route), Ok(count)) =
            (label(labels, "method"), label(labels, "route"), count.parse::<u64>())
        {
            *requests.entry((method.to_owned(), route.to_owned())).or_default() += count;
        }
    }
    requests
}

/// Routes and methods hold no quotes, so none is escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_method_and_route() {
        let text = "# TYPE vstack_http_requests counter\n\
            vstack_http_requests_total{method=\"PUT\",route=\"/chunk/{id}\",status=\"201\"} 5\n\
            vstack_http_requests_total{method=\"PUT\",route=\"/chunk/{id}\",status=\"200\"} 2\n\
            vstack_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"200\"} 1\n\
            vstack_http_request_seconds_count{route=\"/metrics\"} 1\n# EOF\n";
        let now = parse(text);
        let key = |method: &str, route: &str| (method.to_owned(), route.to_owned());
        assert_eq!(now[&key("PUT", "/chunk/{id}")], 7);
        assert_eq!(now[&key("GET", "/metrics")], 1);
        assert_eq!(now.len(), 2);
        let before = Requests::from([(key("PUT", "/chunk/{id}"), 3), (key("GET", "/metrics"), 1)]);
        assert_eq!(since(&before, &now), Requests::from([(key("PUT", "/chunk/{id}"), 4)]));
    }
}
