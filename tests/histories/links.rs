//! What lies between one caller and one node: a TCP proxy whose two directions can be delayed, held up and cut.
//!
//! What is held up is delivered late when the link is let go again; what is under way when a link is reset is lost. Both
//! happen to networks, and the second is the only way to lose a message over TCP.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// One direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Everything gets through, so much later.
    Passes(Duration),
    /// Nothing gets through; it waits.
    Held,
}

#[derive(Debug, Clone, Copy)]
struct State {
    to_node: Flow,
    to_caller: Flow,
    /// A connection made before the last reset is no more.
    resets: u64,
}

/// Listens on a port of its own.
pub struct Link {
    /// Where the caller finds the node behind it.
    pub url: String,
    state: Arc<watch::Sender<State>>,
    accepting: JoinHandle<()>,
}

/// All is well.
pub const OPEN: Flow = Flow::Passes(Duration::ZERO);

impl Link {
    /// To `node`.
    pub async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(watch::Sender::new(State {
            to_node: OPEN,
            to_caller: OPEN,
            resets: 0,
        }));
        let sender = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((caller, _)) = listener.accept().await else {
                    continue;
                };
                let state = sender.subscribe();
                tokio::spawn(async move { relay(caller, node, state).await });
            }
        });
        Self { url, state, accepting }
    }

    /// Both directions, from now on.
    pub fn set(&self, to_node: Flow, to_caller: Flow) {
        self.state.send_modify(|state| {
            state.to_node = to_node;
            state.to_caller = to_caller;
        });
    }

    /// Ends every connection, with whatever is under way.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

async fn relay(caller: TcpStream, node: SocketAddr, state: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect(node).await else {
        return;
    };
    let _small_messages_at_once = (caller.set_nodelay(true), server.set_nodelay(true));
    let (from_caller, to_caller) = caller.into_split();
    let (from_node, to_node) = server.into_split();
    tokio::join!(
        pump(from_caller, to_node, state.clone(), |state| state.to_node),
        pump(from_node, to_caller, state, |state| state.to_caller),
    );
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    flow: fn(&State) -> Flow,
) {
    let resets = state.borrow().resets;
    let mut watching = state.clone();
    let passing = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count) = from.read(&mut buffer).await {
            let Ok(delay) = passes(&mut state, flow).await else {
                return;
            };
            sleep(delay).await;
            if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _closed = to.shutdown().await;
    };
    tokio::select! {
        () = passing => {}
        _reset_or_gone = watching.wait_for(|state| state.resets != resets) => {}
    }
}

/// Waits while the direction is held; gives its delay then.
async fn passes(
    state: &mut watch::Receiver<State>,
    flow: fn(&State) -> Flow,
) -> Result<Duration, watch::error::RecvError> {
    let now = state.wait_for(|state| flow(state) != Flow::Held).await?;
    match flow(&now) {
        Flow::Passes(delay) => Ok(delay),
        Flow::Held => Ok(Duration::ZERO),
    }
}
