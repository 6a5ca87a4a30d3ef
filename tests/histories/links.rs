//! What lies between one who calls and one who is called: a TCP proxy whose two directions can be delayed, held up and
//! cut.
//!
//! What is held up is delivered late when the link is let go again; what is under way when a link is reset is lost. Both
//! happen to networks, and the second is the only way to lose a message over TCP.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

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
    questions: Flow,
    answers: Flow,
    /// Questions of nodes that fetch bytes here wait, whatever becomes of the others.
    pulls_wait: bool,
    /// A connection made before the last reset is no more.
    resets: u64,
}

/// How a question begins with which one node fetches bytes from another.
const PULL: &[u8] = b"GET /paxos/";

/// What a link did to those who used it.
#[derive(Debug, Default)]
pub struct Seen {
    /// Pieces of questions and answers that had to wait until the link was let go.
    pub held: AtomicUsize,
    /// Questions of nodes that fetch bytes here.
    pub pulls: AtomicUsize,
    /// Those of them that had to wait.
    pub pulls_held: AtomicUsize,
}

/// Listens on a port of its own.
pub struct Link {
    /// Where whoever is behind it is found.
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    state: Arc<watch::Sender<State>>,
    accepting: JoinHandle<()>,
}

/// All is well.
pub const OPEN: Flow = Flow::Passes(Duration::ZERO);

impl Link {
    /// To who listens there.
    pub async fn to(called: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(watch::Sender::new(State {
            questions: OPEN,
            answers: OPEN,
            pulls_wait: false,
            resets: 0,
        }));
        let seen = Arc::new(Seen::default());
        let (sender, seeing) = (Arc::clone(&state), Arc::clone(&seen));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((caller, _)) = listener.accept().await else {
                    continue;
                };
                let (state, seen) = (sender.subscribe(), Arc::clone(&seeing));
                tokio::spawn(async move { relay(caller, called, state, &seen).await });
            }
        });
        Self {
            address,
            seen,
            state,
            accepting,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Both directions, from now on.
    pub fn set(&self, questions: Flow, answers: Flow) {
        self.state.send_modify(|state| {
            state.questions = questions;
            state.answers = answers;
        });
    }

    /// Whether nodes that fetch bytes here have to wait: then nodes do not reach each other and everybody reaches them.
    pub fn hold_pulls(&self, wait: bool) {
        self.state.send_modify(|state| state.pulls_wait = wait);
    }

    /// Ends every connection, with whatever is under way.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }
}

impl Seen {
    fn piece(&self, pull: bool, held: bool) {
        let (pull, held) = (usize::from(pull), usize::from(held));
        self.held.fetch_add(held, Ordering::Relaxed);
        self.pulls.fetch_add(pull, Ordering::Relaxed);
        self.pulls_held.fetch_add(pull * held, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

async fn relay(caller: TcpStream, called: SocketAddr, state: watch::Receiver<State>, seen: &Seen) {
    let Ok(called) = TcpStream::connect(called).await else {
        return;
    };
    let _small_messages_at_once = (caller.set_nodelay(true), called.set_nodelay(true));
    let (questions, to_caller) = caller.into_split();
    let (answers, to_called) = called.into_split();
    tokio::join!(
        pump(questions, to_called, state.clone(), seen, |state| state.questions),
        pump(answers, to_caller, state, seen, |state| state.answers),
    );
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    seen: &Seen,
    flow: fn(&State) -> Flow,
) {
    let resets = state.borrow().resets;
    let mut watching = state.clone();
    let passing = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count) = from.read(&mut buffer).await {
            let pull = buffer[..count].starts_with(PULL);
            let flow = |state: &State| match flow(state) {
                Flow::Passes(_) if pull && state.pulls_wait => Flow::Held,
                flow => flow,
            };
            let held = flow(&state.borrow()) == Flow::Held;
            seen.piece(pull, held);
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
    flow: impl Fn(&State) -> Flow,
) -> Result<Duration, watch::error::RecvError> {
    let now = state.wait_for(|state| flow(state) != Flow::Held).await?;
    match flow(&now) {
        Flow::Passes(delay) => Ok(delay),
        Flow::Held => Ok(Duration::ZERO),
    }
}
