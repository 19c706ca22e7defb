//! A client's connection, under the HTTP: how long it may take until the next request's head has come to its end, and what
//! is said of a head that is of no use.
//!
//! actix-http times the first head of a connection alone, so all of them are timed here. What happens within a request is
//! not this module's: `body` times bodies, and the system ends connections that take nothing of an answer.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest};
use actix_web::http::StatusCode;
use actix_web::http::header::HttpDate;
use actix_web::rt::net::TcpStream;
use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::problem::Problem;
use super::request_id::RequestIds;

/// How long a client may take to send a request's head, in seconds: from the first byte on, or from the connection's begin.
const HEAD_SECONDS: u32 = 10;
/// How long a connection may be idle between requests, in seconds. actix-http ends it then, but for one where the next head
/// has begun before the last answer came to its end: this takes as long as both together.
const KEEP_ALIVE_SECONDS: u32 = 75;
/// The same.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(KEEP_ALIVE_SECONDS as u64);
/// How long a client may take nothing of what it is sent.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a worker looks for who is late.
const TICK: Duration = Duration::from_secs(1);

/// The connections of a worker, and its clock. A timer for each connection would have to be set anew for each request.
#[derive(Debug)]
pub(super) struct Connections {
    ids: Arc<RequestIds>,
    second: Cell<u32>,
    /// Whether somebody looks after them.
    watched: Cell<bool>,
    waiting: RefCell<Vec<Weak<Waiting>>>,
}

impl Connections {
    /// None yet.
    pub(super) fn new(ids: Arc<RequestIds>) -> Self {
        Self { ids, second: Cell::new(0), watched: Cell::new(false), waiting: RefCell::default() }
    }

    /// Looks after a connection that a client has made.
    pub(super) fn accept(self: &Rc<Self>, stream: TcpStream) -> (Connection, Option<SocketAddr>) {
        // Nobody here could tell that a client takes nothing, but the system can.
        if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(SILENCE)) {
            tracing::debug!(%error, "a connection's silence can't be limited");
        }
        let peer = stream.peer_addr().ok();
        let waiting = Rc::new(Waiting {
            connections: Rc::clone(self),
            answering: Cell::new(0),
            head_begun: Cell::new(true),
            deadline: Cell::new(Some(self.after(HEAD_SECONDS))),
            reader: RefCell::new(None),
        });
        self.waiting.borrow_mut().push(Rc::downgrade(&waiting));
        if !self.watched.replace(true) {
            actix_web::rt::spawn(Rc::clone(self).watch());
        }
        (Connection { stream, waiting }, peer)
    }

    /// The second that is at least so many away.
    fn after(&self, seconds: u32) -> u32 {
        self.second.get().saturating_add(seconds).saturating_add(1)
    }

    /// Wakes the connections that are late, as long as there are any.
    async fn watch(self: Rc<Self>) {
        while !self.waiting.borrow().is_empty() {
            tokio::time::sleep(TICK).await;
            self.second.set(self.second.get().saturating_add(1));
            self.waiting.borrow_mut().retain(|waiting| match waiting.upgrade() {
                Some(waiting) => {
                    waiting.wake_if_late();
                    true
                }
                None => false,
            });
        }
        self.watched.set(false);
    }
}

/// What a connection waits for.
struct Waiting {
    connections: Rc<Connections>,
    /// How many of its requests are being answered.
    answering: Cell<u32>,
    /// Whether some of the next head is there.
    head_begun: Cell<bool>,
    /// The second by which the next head has to be there, if one is waited for.
    deadline: Cell<Option<u32>>,
    /// Whoever waits for bytes.
    reader: RefCell<Option<Waker>>,
}

impl Waiting {
    fn received(&self) {
        if self.answering.get() == 0 && !self.head_begun.replace(true) {
            self.deadline.set(Some(self.connections.after(HEAD_SECONDS)));
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.get().is_some_and(|deadline| self.connections.second.get() >= deadline)
    }

    fn wake_if_late(&self) {
        if self.is_late()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

/// A request that is being answered; until it is dropped, its connection waits for no head.
pub(super) struct Answering(Rc<Waiting>);

impl Answering {
    /// Of a request whose head is there. None if it came over no [`Connection`].
    pub(super) fn begin(request: &ServiceRequest) -> Option<Self> {
        let waiting = Rc::clone(request.conn_data::<Rc<Waiting>>()?);
        waiting.answering.set(waiting.answering.get() + 1);
        waiting.deadline.set(None);
        Some(Self(waiting))
    }

    /// The body of the answer, at whose end the request is answered.
    pub(super) fn until_end<B>(answering: Option<Self>, body: B) -> Answer<B> {
        Answer { body, _answering: answering }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let Self(waiting) = self;
        waiting.answering.set(waiting.answering.get() - 1);
        if waiting.answering.get() == 0 {
            waiting.head_begun.set(false);
            waiting.deadline.set(Some(waiting.connections.after(KEEP_ALIVE_SECONDS + HEAD_SECONDS)));
        }
    }
}

/// The body of an answer.
pub(super) struct Answer<B> {
    body: B,
    _answering: Option<Answering>,
}

impl<B: MessageBody + Unpin> MessageBody for Answer<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// A connection, which ends when a head doesn't come in time.
pub(super) struct Connection {
    stream: TcpStream,
    waiting: Rc<Waiting>,
}

impl Connection {
    /// Lets the requests of a connection know it.
    pub(super) fn introduce(&self, extensions: &mut Extensions) {
        extensions.insert(Rc::clone(&self.waiting));
    }
}

/// What a client is told whose head is of no use: the connection ends after it.
fn refusal(ids: &RequestIds, status: StatusCode) -> String {
    let problem = Problem::new(
        status,
        match status {
            StatusCode::REQUEST_TIMEOUT => {
                format!("The head of the request did not come to its end within {HEAD_SECONDS} seconds.")
            }
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "The head of the request is too large.".to_owned(),
            _ => "The head of the request is not that of an HTTP/1.1 request.".to_owned(),
        },
    );
    let (title, problem) = (status.canonical_reason().unwrap_or_default(), problem.to_json());
    let (status, date, id, length) = (status.as_u16(), HttpDate::from(SystemTime::now()), ids.next(), problem.len());
    format!(
        "HTTP/1.1 {status} {title}\r\nconnection: close\r\ncontent-type: application/problem+json\r\n\
         content-length: {length}\r\nx-request-id: {id}\r\ndate: {date}\r\n\r\n{problem}"
    )
}

/// The status if the bytes are an answer of actix-http's own, to a head that it could not read. It has no body, nor the id
/// that all of ours have.
fn bare_refusal(bytes: &[u8]) -> Option<StatusCode> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 ")?;
    let status = StatusCode::from_bytes(rest.get(..3)?).ok().filter(StatusCode::is_client_error)?;
    let bare = rest.ends_with(b"\r\n\r\n") && memchr::memmem::find(rest, b"x-request-id").is_none();
    bare.then_some(status)
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, waiting } = self.get_mut();
        if waiting.is_late() {
            // No answer is under way, so this is one. Whoever takes nothing anymore misses it.
            let _ = stream.try_write(refusal(&waiting.connections.ids, StatusCode::REQUEST_TIMEOUT).as_bytes());
            waiting.deadline.set(None);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            waiting.received();
        }
        if polled.is_pending() {
            let mut reader = waiting.reader.borrow_mut();
            if !reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
                *reader = Some(context.waker().clone());
            }
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, waiting } = self.get_mut();
        if let Some(status) = bare_refusal(bytes) {
            let refused = stream.try_write(refusal(&waiting.connections.ids, status).as_bytes());
            return Poll::Ready(refused.map(|_| bytes.len()));
        }
        Pin::new(stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
