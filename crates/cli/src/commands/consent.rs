//! Asking a person before something is done that cannot be undone.

use std::io::{IsTerminal as _, Write as _};

/// Whether somebody can be asked: at a terminal, and not where a program reads the answers.
pub fn is_anybody_there(json: bool) -> bool {
    !json && std::io::stdin().is_terminal()
}

/// Whether a person at a terminal says yes. Asked aside, so that Ctrl-C is heard meanwhile.
pub async fn says_yes(question: String) -> anyhow::Result<bool> {
    let asked = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
        let mut stderr = std::io::stderr();
        write!(stderr, "{question} Type yes: ")?;
        stderr.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok(answer)
    });
    Ok(asked.await??.trim() == "yes")
}
