//! What is looked at last, once everything is whole and the census says so: the forms of films, what was listed wrongly, and
//! shares.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    actors::forgers,
    ending::{self, Demand},
    evenness, forms,
    history::{TOLD_WITHIN, WHOLE_WITHIN},
    told,
    world::World,
};

/// So long after everything was whole every film is kept as it is to be: who did not take copies in the midst of trouble is
/// given none for ten minutes.
const FORMED_WITHIN: Duration = Duration::from_secs(900);
/// And so long after that nodes are even.
const EVEN_WITHIN: Duration = Duration::from_secs(900);

/// Waits for all of it.
///
/// # Errors
/// What is still not so.
pub(crate) async fn close(world: &Arc<World>) -> Result<(), String> {
    if timeout(FORMED_WITHIN, forms::until_formed(world)).await.is_err() {
        let why = forms::why_not_formed(world).await;
        return Err(format!(
            "{} s after everything was whole films are not kept as they are to be: {why}",
            FORMED_WITHIN.as_secs()
        ));
    }
    if forgers::forge_late(world).await {
        is_put_right(world).await?;
    }
    if timeout(EVEN_WITHIN, evenness::until_even(world)).await.is_err() {
        let why = evenness::why_not_even(world).await;
        return Err(format!(
            "{} s after everything was whole nodes are not even: {why}",
            EVEN_WITHIN.as_secs()
        ));
    }
    Ok(())
}

/// Whether what is listed wrongly is found, and made and listed anew, and everything is well again then.
async fn is_put_right(world: &Arc<World>) -> Result<(), String> {
    let whole = ending::until_whole(world, Demand::Everything);
    if timeout(WHOLE_WITHIN, whole).await.is_err() {
        let why = ending::why_not_whole(world).await;
        return Err(format!(
            "{} s after a shard was listed wrongly it still is: {why}",
            WHOLE_WITHIN.as_secs()
        ));
    }
    if timeout(TOLD_WITHIN, told::until_told(world)).await.is_err() {
        let why = told::why_not_told(world).await;
        return Err(format!(
            "{} s after a wrong shard was put right the census says what is not so: {why}",
            TOLD_WITHIN.as_secs()
        ));
    }
    Ok(())
}
