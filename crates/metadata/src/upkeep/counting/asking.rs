//! Asks one node what it holds, and compares that with what is expected of it.

use std::time::Duration;

use vstack_api::holdings::{Page, Request, Told};
use vstack_client::{ClientError, Holder};
use vstack_types::NodeRef;
use vstack_upkeep::census::{Asking, Outcome};

use super::{Busy, seconds};
use crate::{
    app::App,
    upkeep::{Counted, State, Strange},
};

/// What a node is to tell takes no longer, however much it is.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// Nodes tell what changed. That this comes to the same as everything is tested, and once in so long it is not relied on.
const WHOLE_EVERY: Duration = Duration::from_secs(24 * 3600);
const EVERYTHING: Request = Request::Everything { from: 0 };

/// What a node told, and what it was asked besides what changed there.
struct Answer {
    asking: Asking,
    page: Page,
}

/// Counts one node, unless nothing changed.
pub(super) async fn count(app: &App, holder: Holder, busy: &Busy) {
    let answer = match tokio::time::timeout(TOLD_WITHIN, ask(app, &holder)).await {
        Ok(Ok(Some(answer))) => answer,
        Ok(Ok(None)) => {
            let mut state = app.upkeep.state();
            if let Some(counted) = state.counted.get_mut(&holder.node) {
                counted.at = Some(app.now());
            }
            return;
        }
        Ok(Err(error)) => return trouble(app, holder.node, error.to_string()),
        Err(_elapsed) => return trouble(app, holder.node, "it does not tell in time what it holds".to_owned()),
    };
    busy.with(app, || take(app, holder.node, &answer));
}

/// Compares what a node told with what is expected of it.
fn take(app: &App, node: NodeRef, Answer { asking, page }: &Answer) {
    let settled = seconds(app).saturating_sub(u32::try_from(app.pace.settled_after.as_secs()).unwrap_or(u32::MAX));
    let is_whole = page.told == Told::Everything;
    app.upkeep.metrics.told(is_whole, &page.holdings);
    let now = app.clock.monotonic();
    let mut state = app.upkeep.state();
    let State {
        census, counted, news, ..
    } = &mut *state;
    let outcome = census.count_told(node, asking, page, settled);
    let before = counted.remove(&node).unwrap_or_default();
    if outcome == Outcome::Unknown {
        // It was forgotten meanwhile what was known of it.
        *news += 1;
        let anew = Counted {
            version: None,
            told: None,
            ..before
        };
        counted.insert(node, anew);
        return;
    }
    if page.is_mute {
        census.silence(node);
    }
    let strangers = census.strangers(node);
    let told = (page.process, page.version);
    let after = Counted {
        // What may only be late is looked at again, whether or not anything changes.
        version: (!census.has_uncounted(node)).then_some(told),
        told: Some(told),
        whole_at: if is_whole { now } else { before.whole_at },
        at: Some(app.now()),
        items: page.items_held,
        orphans: strangers.len() as u64,
        strange: Strange::of(strangers, page.key, Some(&before.strange), now),
        is_mute: page.is_mute,
        trouble: None,
    };
    if outcome == Outcome::News || !after.is_like(&before) {
        *news += 1;
    }
    counted.insert(node, after);
}

/// What a node holds in which anything changed, there or in what is expected of it; none when nothing did.
async fn ask(app: &App, holder: &Holder) -> Result<Option<Answer>, ClientError> {
    let (asking, known, was_mute) = {
        let state = app.upkeep.state();
        let asking = state.census.asking(holder.node);
        let counted = state.counted.get(&holder.node);
        let is_lately = |counted: &&Counted| app.clock.monotonic().since(counted.whole_at) < WHOLE_EVERY;
        let lately = counted.filter(is_lately).filter(|_| asking.key.is_some());
        let was_mute = counted.is_some_and(|counted| counted.is_mute);
        (asking, lately.and_then(|counted| counted.told), was_mute)
    };
    let request = known.map_or(EVERYTHING, |(process, version)| Request::Since {
        process,
        version,
        besides: asking.due.clone(),
    });
    let mut page = app.nodes.holdings(holder, &request).await?;
    if let Told::Buckets(buckets) = &page.told {
        // Those of another key say nothing; nor does any bucket say what registers are that were taken for silent.
        if asking.key != Some(page.key) || (was_mute && !page.is_mute) {
            page = app.nodes.holdings(holder, &EVERYTHING).await?;
        } else if buckets.is_empty() && page.is_mute == was_mute && is_counted(app, holder.node) {
            return Ok(None);
        }
    }
    Ok(Some(Answer { asking, page }))
}

/// Whether nothing came in between that makes a count of it necessary, whatever it told.
fn is_counted(app: &App, node: NodeRef) -> bool {
    let state = app.upkeep.state();
    let counted = state.counted.get(&node);
    counted.is_some_and(|counted| counted.version.is_some())
}

fn trouble(app: &App, node: NodeRef, why: String) {
    tracing::debug!(%node, why, "a node could not be counted");
    let mut state = app.upkeep.state();
    state.news += 1;
    let counted = state.counted.entry(node).or_default();
    counted.version = None;
    counted.trouble = Some(why);
}
