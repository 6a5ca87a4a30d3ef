//! Keeps the services running: starts, watches, starts again with growing pauses, stops.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    task::{JoinHandle, LocalSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    plan::{NODE_NAME, Service},
    state::{ServiceState, State},
};
use crate::output::say;
use crate::signals::SUPERVISOR_PID;

/// Pause before a service is started again the first time, and the longest.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// A service that ran so long died of something new.
const RESTART_FORGIVEN: Duration = Duration::from_secs(30);

/// A service asked to stop gets this long.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A log that is longer than this when its service starts is set aside as `.1`.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Of the process that reads it; it stays this very program when the file is replaced by a newer one.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Exit code of a service whose settings are wrong.
const WRONG_USAGE: i32 = 2;

/// A service that ended so often before the cluster was ready is not going to start.
const STARTS_MAX: u32 = 4;

/// A running cluster.
pub struct Supervisor {
    shared: Rc<Shared>,
    tasks: LocalSet,
    services: Vec<JoinHandle<()>>,
}

struct Shared {
    state: RefCell<State>,
    /// Why it makes no sense to go on.
    fatal: RefCell<Option<String>>,
    /// Services that nobody waits for: they ended too often before the cluster was ready, or are left alone.
    given_up: RefCell<BTreeSet<String>>,
    /// Every service has answered once.
    ready: Cell<bool>,
    data: PathBuf,
}

impl Shared {
    fn update(&self, name: &str, change: impl FnOnce(&mut ServiceState)) {
        let mut state = self.state.borrow_mut();
        if let Some(service) = state.services.iter_mut().find(|service| service.name == name) {
            change(service);
        }
        if let Err(error) = state.save(&self.data) {
            say!("cannot write cluster.json: {error:#}");
        }
    }

    fn give_up(&self, name: &str) {
        self.given_up.borrow_mut().insert(name.to_owned());
    }

    /// What a service said last was wrong, as its log has it.
    fn complaint(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let last = text.lines().rev().find(|line| line.starts_with("error: "));
        last.map_or_else(
            || "its log says more".to_owned(),
            |line| line.trim_start_matches("error: ").to_owned(),
        )
    }

    fn log(&self, name: &str) -> PathBuf {
        self.data.join("logs").join(format!("{name}.log"))
    }
}

/// Starts every service of `plan`.
pub fn start(plan: Vec<Service>, data: &Path, restart: bool, stop: CancellationToken) -> anyhow::Result<Supervisor> {
    let logs = data.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let services = plan
        .iter()
        .map(|service| ServiceState {
            name: service.name.clone(),
            url: service.url.clone(),
            pid: None,
            restarts: 0,
            log: logs.join(format!("{}.log", service.name)),
        })
        .collect();
    let state = State {
        pid: std::process::id(),
        services,
    };
    state.save(data)?;
    let shared = Rc::new(Shared {
        state: RefCell::new(state),
        fatal: RefCell::new(None),
        given_up: RefCell::default(),
        ready: Cell::new(false),
        data: data.to_owned(),
    });
    let tasks = LocalSet::new();
    let is_node = |service: &Service| service.name.starts_with(NODE_NAME);
    let several = plan.iter().filter(|service| is_node(service)).count() > 1;
    let services = plan
        .into_iter()
        .map(|service| {
            let (shared, stop) = (Rc::clone(&shared), stop.clone());
            let need = if several && is_node(&service) {
                Need::Spare
            } else {
                Need::Must
            };
            tasks.spawn_local(keep_running(service, need, shared, restart, stop))
        })
        .collect();
    Ok(Supervisor {
        shared,
        tasks,
        services,
    })
}

impl Supervisor {
    /// Waits until every service has ended, which they do once `stop` is cancelled.
    ///
    /// # Errors
    /// When it was a service that refused its settings, which no other start would change.
    pub async fn join(self) -> anyhow::Result<()> {
        self.tasks
            .run_until(async {
                for service in self.services {
                    let _ended = service.await;
                }
            })
            .await;
        self.shared
            .fatal
            .take()
            .map_or(Ok(()), |reason| Err(anyhow::anyhow!(reason)))
    }

    /// Whether it makes no sense to wait until a service answers that did not yet.
    pub fn is_given_up(&self, name: &str) -> bool {
        self.shared.given_up.borrow().contains(name)
    }

    /// From now on a service that dies is started again however often.
    pub fn is_ready(&self) {
        self.shared.ready.set(true);
    }

    /// Lets the services run while `work` goes on.
    pub async fn run_with<T>(&self, work: impl Future<Output = T>) -> T {
        self.tasks.run_until(work).await
    }
}

/// Whether the cluster comes up without a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Must,
    /// A storage node beside others.
    Spare,
}

/// How a service came to its end.
struct Ended {
    /// `ended: exit status: 1`.
    how: String,
    /// Its settings are wrong, which no other start would change.
    refused: bool,
    /// What was wrong, where its log does not say so.
    why: Option<String>,
}

async fn keep_running(service: Service, need: Need, shared: Rc<Shared>, restart: bool, stop: CancellationToken) {
    let mut pause = RESTART_PAUSE.0;
    let mut starts = 0;
    while !stop.is_cancelled() {
        let started = Instant::now();
        let Some(ended) = run_once(&service, &shared, &stop).await else {
            return;
        };
        starts += 1;
        let is_hopeless = !shared.ready.get() && starts >= STARTS_MAX;
        let why = || ended.why.clone().unwrap_or_else(|| shared.complaint(&service.name));
        if ended.refused || (is_hopeless && need == Need::Must) {
            let verdict = if ended.refused {
                "refuses its settings"
            } else {
                "does not start"
            };
            shared
                .fatal
                .replace(Some(format!("{} {verdict}: {}", service.name, why())));
            stop.cancel();
            return;
        }
        if is_hopeless && starts == STARTS_MAX {
            say!("{} does not start: {}", service.name, why());
        }
        say!(
            "{} {}{}",
            service.name,
            ended.how,
            if restart { "; starting it again" } else { "" }
        );
        if is_hopeless || !restart {
            shared.give_up(&service.name);
        }
        if !restart {
            return;
        }
        if started.elapsed() > RESTART_FORGIVEN {
            pause = RESTART_PAUSE.0;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(RESTART_PAUSE.1);
        shared.update(&service.name, |state| state.restarts += 1);
    }
}

/// Starts a service and waits for its end; none when it was asked to stop.
async fn run_once(service: &Service, shared: &Shared, stop: &CancellationToken) -> Option<Ended> {
    let mut child = match spawn(service, shared) {
        Ok(child) => child,
        Err(error) => {
            let why = format!("{error:#}");
            return Some(Ended {
                how: format!("could not be started: {why}"),
                refused: false,
                why: Some(why),
            });
        }
    };
    shared.update(&service.name, |state| state.pid = child.id());
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        () = stop.cancelled() => None,
    };
    if ended.is_none() {
        end(&service.name, &mut child).await;
    }
    shared.update(&service.name, |state| state.pid = None);
    let ended = ended?;
    let refused = ended.as_ref().is_ok_and(|status| status.code() == Some(WRONG_USAGE));
    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    Some(Ended {
        how: format!("ended: {how}"),
        refused,
        why: None,
    })
}

fn spawn(service: &Service, shared: &Shared) -> anyhow::Result<Child> {
    let log_path = shared.log(&service.name);
    if std::fs::metadata(&log_path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        std::fs::rename(&log_path, log_path.with_extension("log.1"))?;
    }
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log_path)
        .context("cannot open its log")?;
    Command::new(THIS_PROGRAM)
        .arg0("vstack")
        .arg(service.subcommand)
        .envs(service.env.iter().map(|(name, value)| (name, value)))
        .env_remove("CLUSTER_SECRET")
        .env(SUPERVISOR_PID, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A Ctrl-C in the terminal is for the supervisor, which stops the services in its own way.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start it")
}

async fn end(name: &str, child: &mut Child) {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself this moment.
        let _gone = kill_process(pid, Signal::TERM);
    }
    if timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
        say!("{name} did not stop in time and is killed");
        let _reaped = child.kill().await;
    }
}
