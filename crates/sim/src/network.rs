//! The network of a history: every request between processes, from its sender's client to its target's router.
//!
//! What is real: the typed clients, their headers, bodies and MACs, the routers with their extractors and handlers.
//! What is simulated: how long it takes, and whether it arrives. A request may be lost, late, doubled, cut off by a
//! caller that hangs up, or answered into the void; links may be blocked one way or both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use vstack_api::headers;
use vstack_client::{Sending, Wire, WireError};

use crate::{calls::Call, dice::Dice, hosts::HostId, life::Life, struck::Kind, world::World};

/// A request that names no timeout has this one.
const PATIENCE: Duration = Duration::from_secs(30);
/// A connection that is not made by then fails.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A request that is slow takes at least so long, one that is not never.
const SLOW_FROM: Duration = Duration::from_millis(30);
/// No answer is longer.
const BODY_BYTES_MAX: usize = 4 << 20;

/// How the network is, besides blocked links.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Of 100 requests, and of 100 answers.
    pub lost: u32,
    /// Of 100 requests.
    pub slow: u32,
    /// Of 100 signed requests.
    pub doubled: u32,
    /// Of 100 requests whose caller gives up: those whose handler is cut off with it.
    pub hung_up: u32,
}

/// A process that takes requests.
struct Door {
    router: Router,
    life: Life,
}

/// The state of the network.
pub(crate) struct Network {
    dice: Dice,
    doors: BTreeMap<HostId, Door>,
    /// From, to.
    blocked: BTreeSet<(HostId, HostId)>,
    pub weather: Weather,
    /// Requests being handled, by target.
    pub under_way: BTreeMap<HostId, usize>,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy)]
struct Fate {
    there: Duration,
    back: Duration,
    lost: bool,
    answer_lost: bool,
    /// Delivered again so much later.
    again: Option<Duration>,
    hangs_up: bool,
    /// A blocked link shows as a failed connection, not as silence.
    refused: bool,
}

impl Network {
    pub(crate) fn new(dice: Dice) -> Self {
        Self {
            dice,
            doors: BTreeMap::new(),
            blocked: BTreeSet::new(),
            weather: Weather::default(),
            under_way: BTreeMap::new(),
        }
    }

    pub(crate) fn open(&mut self, host: HostId, router: Router, life: Life) {
        self.doors.insert(host, Door { router, life });
    }

    pub(crate) fn close(&mut self, host: HostId) {
        self.doors.remove(&host);
    }

    /// Nobody takes requests any more; gives what took them.
    pub(crate) fn close_all(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.doors)
    }

    pub(crate) fn block(&mut self, from: HostId, to: HostId) {
        self.blocked.insert((from, to));
    }

    /// Both ways.
    pub(crate) fn unblock(&mut self, one: HostId, other: HostId) {
        self.blocked.remove(&(one, other));
        self.blocked.remove(&(other, one));
    }

    pub(crate) fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    fn is_blocked(&self, from: HostId, to: HostId) -> bool {
        self.blocked.contains(&(from, to))
    }

    fn delay(&mut self) -> Duration {
        if self.dice.chance(self.weather.slow) {
            self.dice.millis(30, 3_000)
        } else {
            self.dice.millis(1, 6)
        }
    }

    fn fate(&mut self, signed: bool) -> Fate {
        let weather = self.weather;
        Fate {
            there: self.delay(),
            back: self.delay(),
            lost: self.dice.chance(weather.lost),
            answer_lost: self.dice.chance(weather.lost),
            again: (self.dice.chance(weather.doubled) && signed).then(|| self.dice.millis(1, 8_000)),
            hangs_up: self.dice.chance(weather.hung_up),
            refused: self.dice.chance(50),
        }
    }
}

/// A request on its way.
#[derive(Debug, Clone)]
struct Parcel {
    to: HostId,
    method: Method,
    uri: Uri,
    head: HeaderMap,
    body: Bytes,
}

impl Parcel {
    fn of(request: &reqwest::Request) -> Option<Self> {
        let url = request.url();
        let to = HostId::named(url.host_str()?)?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
        let mut head = request.headers().clone();
        // As hyper does for a body whose length is known.
        if !body.is_empty() || matches!(*request.method(), Method::PUT | Method::POST) {
            head.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        Some(Self {
            to,
            method: request.method().clone(),
            uri: path.parse().ok()?,
            head,
            body: Bytes::copy_from_slice(body),
        })
    }

    fn call(&self) -> Call {
        let query = self.uri.query().unwrap_or_default();
        Call::of(&self.method, self.uri.path(), query, &self.head, &self.body)
    }

    fn request(self) -> http::Request<Body> {
        let mut request = http::Request::new(Body::from(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.head;
        request
    }
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub head: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    fn response(self) -> reqwest::Response {
        let mut response = http::Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.head;
        response.into()
    }
}

/// What one process sends through.
pub(crate) struct SimWire {
    pub world: Arc<World>,
    pub from: HostId,
    pub life: Life,
}

type Answering = oneshot::Sender<Result<Answer, WireError>>;

impl Wire for SimWire {
    fn send(&self, request: reqwest::Request) -> Sending {
        let (world, from, life) = (Arc::clone(&self.world), self.from, self.life.clone());
        Box::pin(async move {
            if life.is_over() {
                return std::future::pending().await;
            }
            let limit = request.timeout().copied().unwrap_or(PATIENCE);
            let Some(parcel) = Parcel::of(&request) else {
                return Err(WireError::Unreachable);
            };
            let fate = world.network().fate(parcel.head.contains_key(headers::VSTACK_MAC));
            let (answering, answer) = oneshot::channel();
            let hung_up = CancellationToken::new();
            let _hangs_up_when_dropped = hung_up.clone().drop_guard();
            let way = Way {
                world,
                from,
                parcel,
                fate,
                hung_up,
            };
            if let Some(later) = fate.again {
                let again = way.again();
                tokio::spawn(async move {
                    sleep(later).await;
                    again.world.tally.strikes(Kind::RequestDoubled);
                    let (nobody, _) = oneshot::channel();
                    again.go(nobody).await;
                });
            }
            tokio::spawn(way.go(answering));
            let answer = timeout(limit, answer).await;
            if life.is_over() {
                return std::future::pending().await;
            }
            match answer {
                Ok(Ok(answer)) => answer.map(Answer::response),
                // The courier holds on to what is lost until nobody waits.
                Ok(Err(_)) | Err(_) => Err(WireError::Timeout),
            }
        })
    }
}

/// A request's way there and back.
struct Way {
    world: Arc<World>,
    from: HostId,
    parcel: Parcel,
    fate: Fate,
    hung_up: CancellationToken,
}

impl Way {
    /// The same once more, for nobody.
    fn again(&self) -> Self {
        Self {
            world: Arc::clone(&self.world),
            from: self.from,
            parcel: self.parcel.clone(),
            fate: Fate {
                again: None,
                lost: false,
                hangs_up: false,
                ..self.fate
            },
            hung_up: CancellationToken::new(),
        }
    }

    async fn go(self, answering: Answering) {
        let (world, from, to, fate) = (Arc::clone(&self.world), self.from, self.parcel.to, self.fate);
        let hung_up = self.hung_up.clone();
        sleep(fate.there).await;
        if fate.there >= SLOW_FROM {
            world.tally.strikes(Kind::RequestSlow);
        }
        let blocked = world.network().is_blocked(from, to);
        if blocked && fate.refused {
            world.tally.strikes(Kind::RequestRefused);
            sleep(CONNECT_TIMEOUT).await;
            let _gave_up = answering.send(Err(WireError::Unreachable));
            return;
        }
        if blocked || fate.lost {
            let (kind, outcome) = if blocked {
                (Kind::RequestBlocked, "blocked")
            } else {
                (Kind::RequestLost, "lost")
            };
            world.tally.strikes(kind);
            world.message(from, to, &self.parcel.call(), outcome);
            return silence(&hung_up, answering).await;
        }
        let Some(answer) = self.deliver().await else {
            let _gave_up = answering.send(Err(WireError::Unreachable));
            return;
        };
        sleep(fate.back).await;
        let blocked = world.network().is_blocked(to, from);
        if fate.answer_lost || blocked {
            let kind = if blocked { Kind::AnswerBlocked } else { Kind::AnswerLost };
            world.tally.strikes(kind);
            return silence(&hung_up, answering).await;
        }
        let _gave_up = answering.send(Ok(answer));
    }

    /// Has it handled; none when nobody is there, or the process ends over it.
    async fn deliver(self) -> Option<Answer> {
        let Self {
            world,
            from,
            parcel,
            fate,
            hung_up,
        } = self;
        let (to, call) = (parcel.to, parcel.call());
        let door = {
            let network = world.network();
            network
                .doors
                .get(&to)
                .map(|door| (door.router.clone(), door.life.clone()))
        };
        let Some((router, life)) = door else {
            world.message(from, to, &call, "nobody is there");
            return None;
        };
        *world.network().under_way.entry(to).or_default() += 1;
        let answered = tokio::select! {
            biased;
            () = life.over() => {
                world.tally.strikes(Kind::EndedInRequest);
                None
            }
            () = hung_up.cancelled(), if fate.hangs_up => {
                world.tally.strikes(Kind::HungUp);
                None
            }
            // Who lost power over it does not say another word.
            answer = handle(router, parcel) => answer.filter(|_| !life.is_over()),
        };
        if let Some(count) = world.network().under_way.get_mut(&to) {
            *count -= 1;
        }
        match answered {
            Some(answer) => {
                world.answered(from, to, &call, &answer);
                Some(answer)
            }
            None => {
                world.message(from, to, &call, "cut off");
                None
            }
        }
    }
}

/// Nothing comes back, for as long as anybody waits.
async fn silence(hung_up: &CancellationToken, answering: Answering) {
    hung_up.cancelled().await;
    drop(answering);
}

async fn handle(router: Router, parcel: Parcel) -> Option<Answer> {
    let Ok(response) = router.oneshot(parcel.request()).await;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.ok()?.to_bytes();
    Some(Answer {
        status: head.status,
        head: head.headers,
        body,
    })
}
