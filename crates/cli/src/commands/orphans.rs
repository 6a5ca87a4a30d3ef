//! `vstack orphans`: what nodes keep where nobody expects it, and giving up what nothing known explains.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::{bail, ensure};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_api::census::{Census, GIVEN_UP_AT_ONCE, KeptOrphan, Orphan};
use vstack_client::MetadataClient;
use vstack_types::ChunkId;

use super::{Cluster, consent};
use crate::output::{self, out, say};

/// For `--help`.
pub const EXAMPLES: &str = "\
Examples:
  vstack orphans
      what nodes keep where nobody expects it, and why
  vstack orphans --node storage-node-2 --give-up
      delete what nothing known explains of that, after a question

What nothing known explains may be the only trace of films of which the metadata service's database, if it is an older one,
knows nothing: where there is a newer one, start the service with that first.

Exit code 0: listed, or everything was given up; 1: something was not, or that is not known. Again does no harm.";

/// What to show or to give up.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Only chunks of which this node keeps something; its name as `vstack census` shows it.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Delete those chunks that nothing known explains, for good, on every node that has some of them. Their nodes agree on
    /// that, as on the deletion of any chunk, and collect the bytes in their time (GC_GRACE).
    #[arg(long)]
    give_up: bool,
    /// Do not ask before.
    #[arg(long, short, requires = "give_up")]
    yes: bool,
    /// As JSON; with --give-up it asks nothing, so --yes is needed.
    #[arg(long)]
    json: bool,
}

/// What came of giving up.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    given_up: Vec<ChunkId>,
    kept: Vec<KeptOrphan>,
    /// More was kept than was named, and is yet to be given up.
    more_left: bool,
}

impl Outcome {
    /// Nothing is left that nothing known explains.
    fn is_all(&self) -> bool {
        self.kept.is_empty() && !self.more_left
    }
}

/// Lists orphans, or gives them up.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let asked = stop.run_until_cancelled(metadata.census()).await;
    let Some(census) = asked.transpose()? else {
        return Ok(ExitCode::FAILURE);
    };
    let orphans = listed(&census, options.node.as_deref())?;
    if !options.give_up {
        show(&options, &census, &orphans)?;
        return Ok(ExitCode::SUCCESS);
    }
    let chunks = unexplained(&orphans);
    let more = more_unexplained(&census, options.node.as_deref());
    if chunks.is_empty() {
        say!("{}", nothing_to_give_up(&census, more));
    } else if !options.yes {
        ensure!(
            consent::is_anybody_there(options.json),
            "nobody to ask: say --yes to give up what nothing known explains"
        );
        let asked = stop
            .run_until_cancelled(consent::says_yes(question(chunks.len(), more)))
            .await;
        if asked.transpose()? != Some(true) {
            say!("nothing was given up");
            return Ok(ExitCode::FAILURE);
        }
    }
    let (mut outcome, is_done) = give_up(&metadata, &chunks, &stop).await;
    outcome.more_left = more;
    if options.json {
        output::json(&outcome)?;
    } else {
        for line in told(&outcome) {
            say!("{line}");
        }
    }
    Ok(if is_done && outcome.is_all() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is kept, at one node where somebody asks for one.
fn listed<'a>(census: &'a Census, node: Option<&str>) -> anyhow::Result<Vec<&'a Orphan>> {
    let Some(name) = node else {
        return Ok(census.orphans.iter().collect());
    };
    if !census.nodes.iter().any(|row| row.node == name) {
        bail!("there is no node {name}; `vstack census` names them");
    }
    let is_there = |orphan: &&Orphan| orphan.node == name;
    Ok(census.orphans.iter().filter(is_there).collect())
}

/// Each chunk that nothing known explains, once, at however many nodes something of it is.
fn unexplained(orphans: &[&Orphan]) -> Vec<ChunkId> {
    let unexplained = orphans.iter().filter(|orphan| !orphan.explained);
    let chunks: BTreeSet<&ChunkId> = unexplained.map(|orphan| &orphan.chunk_id).collect();
    chunks.into_iter().cloned().collect()
}

/// Whether more is kept than is named that nothing known explains, at one node where somebody asks for one.
fn more_unexplained(census: &Census, node: Option<&str>) -> bool {
    let mut rows = census.nodes.iter();
    rows.any(|row| row.more_unexplained && node.is_none_or(|name| row.node == name))
}

fn nothing_to_give_up(census: &Census, more: bool) -> String {
    if more {
        return "nothing is named now that nothing known explains, and more of that is kept than was named: nodes are looked at \
                again, so say it again in a while"
            .to_owned();
    }
    format!("nothing is kept that nothing known explains{}", so_far(census))
}

const MORE: &str = "more is kept that nothing known explains than is named: others are named once these were given up";

fn show(options: &Options, census: &Census, orphans: &[&Orphan]) -> anyhow::Result<()> {
    if options.json {
        return output::json(&orphans);
    }
    let more = more_unexplained(census, options.node.as_deref());
    if orphans.is_empty() {
        if more {
            say!("{}", nothing_to_give_up(census, more));
        } else {
            say!("nodes keep nothing where nobody expects it{}", so_far(census));
        }
        return Ok(());
    }
    let mut table = output::table(&["NODE", "CHUNK", "EXPLAINED", "WHY IT IS KEPT"]);
    for orphan in orphans {
        table.add_row([
            output::plain(&orphan.node),
            orphan.chunk_id.to_string(),
            if orphan.explained { "yes" } else { "no" }.to_owned(),
            output::plain(&orphan.why),
        ]);
    }
    out!("{table}");
    say!("\nat most 200 are named of each node; what is explained is given up by itself as soon as nobody needs it");
    if orphans.iter().any(|orphan| !orphan.explained) {
        say!("what is not is kept until there is a database that knows it, or until `vstack orphans --give-up`");
    }
    if more {
        say!("{MORE}");
    }
    Ok(())
}

/// For where not everything was looked at.
const fn so_far(census: &Census) -> &'static str {
    if census.complete {
        ""
    } else {
        ", as far as everything was counted"
    }
}

fn question(chunks: usize, more: bool) -> String {
    let besides = if more {
        " More are kept than are named, and have to be asked for again."
    } else {
        ""
    };
    format!(
        "Delete {chunks} chunks that nothing known explains, for good? They may be the only trace of films that a newer \
         database knows.{besides}"
    )
}

/// Says it of some chunks at a time; and whether it was said of all of them.
async fn give_up(metadata: &MetadataClient, chunks: &[ChunkId], stop: &CancellationToken) -> (Outcome, bool) {
    let mut outcome = Outcome::default();
    for some in chunks.chunks(GIVEN_UP_AT_ONCE) {
        let asked = metadata.give_up_orphans(some.to_vec());
        match stop.run_until_cancelled(asked).await {
            Some(Ok(told)) => {
                outcome.given_up.extend(told.given_up);
                outcome.kept.extend(told.kept);
            }
            Some(Err(error)) => {
                say!("error: {error}; what was asked for last may have been done all the same, and again does no harm");
                return (outcome, false);
            }
            None => {
                say!("interrupted: what was asked for last may have been done all the same, and again does no harm");
                return (outcome, false);
            }
        }
    }
    (outcome, true)
}

fn told(outcome: &Outcome) -> Vec<String> {
    let mut lines: Vec<String> = outcome
        .kept
        .iter()
        .map(|kept| format!("kept: {}: {}", kept.chunk_id, output::plain(&kept.why)))
        .collect();
    if !outcome.given_up.is_empty() {
        lines.push(format!(
            "given up: {} chunks; nodes collect their bytes in their time, and are looked at again for more",
            outcome.given_up.len()
        ));
    }
    if outcome.more_left {
        lines.push(
            "more is kept that nothing known explains than was named: say it again once `vstack orphans` names some of it"
                .to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};
    use serde_json::json;

    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        let command = Options::augment_args(clap::Command::new("orphans").no_binary_name(true));
        Options::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// Of each orphan its chunk, its node, and whether it is explained.
    fn census(orphans: &[(&str, &str, bool)]) -> Census {
        let orphan = |(chunk, node, explained): &(&str, &str, bool)| {
            json!({
                "chunk_id": chunk, "video_id": null, "node": node, "why": "w", "explained": explained,
            })
        };
        let row = |node: &str| {
            json!({
                "node": node, "counted_at": null, "items": 0, "placed": 0, "placed_bytes": 0, "orphans": 0,
                "trouble": null, "stays_because": null,
            })
        };
        let (nodes, orphans) = (
            ["n1", "n2", "n3"].map(row),
            orphans.iter().map(orphan).collect::<Vec<_>>(),
        );
        serde_json::from_value(json!({
            "health": "unexplained", "complete": true, "at": "2026-01-02T03:04:05Z", "waits": [], "zones": null,
            "tally": vstack_api::census::Tally::default(), "videos": [], "videos_not_whole": 0,
            "nodes": nodes, "orphans": orphans,
            "processor_percent": 0.0,
        }))
        .expect("a census")
    }

    #[test]
    fn only_what_nothing_known_explains_is_given_up_each_chunk_once() {
        let census = census(&[
            ("b", "n1", false),
            ("a", "n1", false),
            ("c", "n1", true),
            ("a", "n2", false),
        ]);
        let of = |node: Option<&str>| {
            let orphans = listed(&census, node).expect("a node");
            let chunks = unexplained(&orphans);
            (
                orphans.len(),
                chunks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(None), (4, vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(of(Some("n2")), (1, vec!["a".to_owned()]));
        assert_eq!(of(Some("n3")), (0, Vec::new()));
        let unknown = listed(&census, Some("nobody")).expect_err("there is no such node");
        assert_eq!(
            unknown.to_string(),
            "there is no node nobody; `vstack census` names them"
        );
    }

    #[test]
    fn nothing_is_given_up_by_accident() {
        for good in [
            &[][..],
            &["--node", "n"],
            &["--give-up"],
            &["--give-up", "--yes", "--json"],
        ] {
            assert!(options(good).is_ok(), "{good:?}");
        }
        for bad in [&["--yes"][..], &["--give-up", "chunk"], &["--node"]] {
            assert!(options(bad).is_err(), "{bad:?}");
        }
        assert!(!options(&["--give-up"]).expect("options").yes, "it is asked for");
        let asked = question(3, false);
        assert!(asked.contains("Delete 3 chunks that nothing known explains, for good?") && !asked.contains("More"));
        assert!(question(3, true).contains("More are kept than are named"));
    }

    #[test]
    fn what_is_kept_is_told_with_the_reason() {
        let id = |text: &str| text.parse::<ChunkId>().expect("an id");
        let outcome = Outcome {
            given_up: vec![id("a"), id("b")],
            kept: vec![KeptOrphan {
                chunk_id: id("c"),
                why: "too few\u{7}".to_owned(),
            }],
            more_left: false,
        };
        let lines = told(&outcome);
        assert_eq!(lines[0], "kept: c: too few\u{fffd}");
        assert!(
            lines[1].starts_with("given up: 2 chunks; nodes collect their bytes"),
            "{lines:?}"
        );
        assert_eq!(told(&Outcome::default()), Vec::<String>::new());
    }

    /// Of one node two hundred are named, however many it keeps.
    #[test]
    fn while_more_is_kept_than_is_named_nobody_is_told_that_all_is_given_up() {
        let mut census = census(&[("a", "n1", false)]);
        assert!(!more_unexplained(&census, None), "of a service that does not say it");
        census.nodes[0].more_unexplained = true;
        let more = [None, Some("n1"), Some("n2")].map(|node| more_unexplained(&census, node));
        assert_eq!(more, [true, true, false]);
        assert!(nothing_to_give_up(&census, true).contains("say it again"));
        assert_eq!(
            nothing_to_give_up(&census, false),
            "nothing is kept that nothing known explains"
        );
        let outcome = |more_left| Outcome {
            more_left,
            ..Outcome::default()
        };
        assert!(outcome(false).is_all() && !outcome(true).is_all());
        assert!(told(&outcome(true))[0].contains("say it again"));
    }
}
