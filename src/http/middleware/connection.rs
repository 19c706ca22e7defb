//! A client's connection, below HTTP: one request at a time, with timeouts in both directions.
//!
//! actix-http times only the first head of a connection, so all heads are timed here; `body` times
//! bodies. A client that reads a response too slowly is disconnected, because unread data takes
//! memory. Pipelined requests wait until those before them are answered.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest};
use actix_web::http::StatusCode;
use actix_web::http::header::HttpDate;
use actix_web::rt::net::TcpStream;
use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::middleware::framing::Framing;
use crate::http::middleware::request_id::RequestIds;
use crate::http::problem::Problem;

/// How long a client may take to send a request's head, in seconds, from its first byte or from the
/// start of the connection.
const HEAD_SECONDS: u32 = 10;
/// How long a connection may be idle between requests, in seconds. actix-http enforces it, unless
/// the next head started before the last response ended. Then it is enforced here, after both
/// timeouts together.
const KEEP_ALIVE_SECONDS: u32 = 75;
/// As a [`Duration`].
pub(in crate::http) const KEEP_ALIVE: Duration = Duration::from_secs(KEEP_ALIVE_SECONDS as u64);
/// How long a client may read nothing of a response.
const SILENCE: Duration = Duration::from_secs(30);
/// The kernel's buffer for a response, in bytes; Linux takes twice as much.
const SEND_BUFFER: usize = 512 * 1024;
/// The minimum rate at which a client must read, in bytes per second, while there is data for it.
const LEAST_RATE: i64 = 32 * 1024;
/// How long a client may read more slowly, or nothing, in seconds. Reading faster earns time back.
const PATIENCE_SECONDS: i64 = 20;
/// How much of later requests is read while one is answered: enough to notice the end of the
/// connection.
const READ_AHEAD: usize = 16 * 1024;
/// How often a worker checks for timeouts.
const TICK: Duration = Duration::from_secs(1);

/// The connections of a worker, and its clock. A timer per connection would have to be reset for
/// each request.
#[derive(Debug)]
pub(in crate::http) struct ConnectionTimers {
    ids: Arc<RequestIds>,
    second: Cell<u32>,
    /// Whether the task that checks them is running.
    watched: Cell<bool>,
    open: RefCell<Vec<Weak<ConnectionState>>>,
}

impl ConnectionTimers {
    pub(in crate::http) fn new(ids: Arc<RequestIds>) -> Self {
        Self { ids, second: Cell::new(0), watched: Cell::new(false), open: RefCell::default() }
    }

    /// Wraps a new connection, and starts to check it.
    pub(in crate::http) fn accept(
        self: &Rc<Self>,
        stream: TcpStream,
    ) -> (Connection, Option<SocketAddr>) {
        // Only the system notices that a client reads nothing at all.
        if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(SILENCE)) {
            tracing::debug!(%error, "can't set TCP_USER_TIMEOUT on a connection");
        }
        // Progress of a slow reader is noticed when a third of the kernel's buffer is free. By
        // default that is more than a reader may be behind.
        if let Err(error) = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER) {
            tracing::debug!(%error, "can't set the send buffer of a connection");
        }
        let peer = stream.peer_addr().ok();
        let state = Rc::new(ConnectionState {
            connections: Rc::clone(self),
            answering: Cell::new(0),
            head_begun: Cell::new(true),
            deadline: Cell::new(Some(self.after(HEAD_SECONDS))),
            turn: Cell::new(Turn::Reading),
            has_more: Cell::new(false),
            is_behind: Cell::new(false),
            patience: Cell::new(PATIENCE_SECONDS * LEAST_RATE),
            task: RefCell::new(None),
        });
        self.open.borrow_mut().push(Rc::downgrade(&state));
        if !self.watched.replace(true) {
            actix_web::rt::spawn(Rc::clone(self).watch());
        }
        let connection = Connection {
            stream,
            state,
            framing: Framing::default(),
            ahead: BytesMut::new(),
            has_ended: false,
        };
        (connection, peer)
    }

    /// The second that is at least `seconds` away.
    fn after(&self, seconds: u32) -> u32 {
        self.second.get().saturating_add(seconds).saturating_add(1)
    }

    /// Wakes connections that have timed out, until there are no connections.
    async fn watch(self: Rc<Self>) {
        while !self.open.borrow().is_empty() {
            tokio::time::sleep(TICK).await;
            self.second.set(self.second.get().saturating_add(1));
            self.open.borrow_mut().retain(|state| match state.upgrade() {
                Some(state) => {
                    state.tick();
                    true
                }
                None => false,
            });
        }
        self.watched.set(false);
    }
}

/// The state of a connection.
struct ConnectionState {
    connections: Rc<ConnectionTimers>,
    /// How many of its requests are being answered.
    answering: Cell<u32>,
    /// Whether part of the next head has arrived.
    head_begun: Cell<bool>,
    /// The second by which the next head must be complete, if one is expected.
    deadline: Cell<Option<u32>>,
    turn: Cell<Turn>,
    /// Whether part of the next request has already been read, or the end.
    has_more: Cell<bool>,
    /// Whether the client had not read everything at the last attempt to send.
    is_behind: Cell<bool>,
    /// By how many bytes the client may still fall behind the minimum rate.
    patience: Cell<i64>,
    /// The task of the connection, while it waits for the client.
    task: RefCell<Option<Waker>>,
}

/// Requests and responses alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A request is being read.
    Reading,
    /// The request was read to its end, and must be answered before the next.
    Answering,
    /// The request was answered before it was read to its end.
    AnsweredEarly,
}

impl ConnectionState {
    fn received(&self) {
        if self.answering.get() == 0 && !self.head_begun.replace(true) {
            self.deadline.set(Some(self.connections.after(HEAD_SECONDS)));
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.get().is_some_and(|deadline| self.connections.second.get() >= deadline)
    }

    /// Called every second.
    fn tick(&self) {
        if self.is_behind.get() {
            self.patience.set(self.patience.get() - LEAST_RATE);
        }
        if self.is_late() || self.is_too_slow() {
            self.wake();
        }
    }

    fn is_too_slow(&self) -> bool {
        self.patience.get() <= 0
    }

    /// Called when the client has taken some bytes, or none.
    fn sent(&self, bytes: usize) {
        self.is_behind.set(bytes == 0);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.patience
            .set(self.patience.get().saturating_add(bytes).min(PATIENCE_SECONDS * LEAST_RATE));
    }

    fn wait(&self, context: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            *task = Some(context.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// A request was read to its end.
    fn read(&self) {
        self.turn.set(match self.turn.get() {
            Turn::AnsweredEarly => Turn::Reading,
            Turn::Reading | Turn::Answering => Turn::Answering,
        });
    }

    /// A request was answered or abandoned.
    fn answered(&self) {
        if self.turn.get() == Turn::Answering {
            self.turn.set(Turn::Reading);
            // Data that has not been read yet wakes the task by itself.
            if self.has_more.get() {
                self.wake();
            }
        } else {
            self.turn.set(Turn::AnsweredEarly);
        }
    }
}

/// A request that is being answered. Until it is dropped, its connection expects no head.
pub(in crate::http) struct RequestInProgress(Rc<ConnectionState>);

impl RequestInProgress {
    /// Starts to answer a request. None if it did not come over a [`Connection`].
    pub(in crate::http) fn begin(request: &ServiceRequest) -> Option<Self> {
        let state = Rc::clone(request.conn_data::<Rc<ConnectionState>>()?);
        state.answering.set(state.answering.get() + 1);
        state.deadline.set(None);
        Some(Self(state))
    }

    /// Wraps the response body. The request counts as answered at the end of the body.
    pub(in crate::http) fn until_end<B>(answering: Option<Self>, body: B) -> TrackedBody<B> {
        TrackedBody { body, _answering: answering }
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        let Self(state) = self;
        state.answering.set(state.answering.get() - 1);
        state.answered();
        if state.answering.get() == 0 {
            state.head_begun.set(false);
            state.deadline.set(Some(state.connections.after(KEEP_ALIVE_SECONDS + HEAD_SECONDS)));
        }
    }
}

/// A response body that ends its request when it is dropped.
pub(in crate::http) struct TrackedBody<B> {
    body: B,
    _answering: Option<RequestInProgress>,
}

impl<B: MessageBody + Unpin> MessageBody for TrackedBody<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, B::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// A connection that ends if a head doesn't arrive, or a response isn't read, in time.
pub(in crate::http) struct Connection {
    stream: TcpStream,
    state: Rc<ConnectionState>,
    framing: Framing,
    /// Bytes read beyond the current request.
    ahead: BytesMut,
    /// The client has stopped sending.
    has_ended: bool,
}

impl Connection {
    /// Reads bytes of the current request.
    fn poll_request(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nor is another request read for a client that doesn't read its responses.
        let is_behind = self.state.is_behind.get() && !self.framing.is_within_request();
        if self.state.turn.get() == Turn::Answering || is_behind {
            return self.poll_ahead(context);
        }
        let before = buffer.filled().len();
        if self.ahead.is_empty() {
            if self.has_ended {
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        } else {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(length));
        }
        let (_, read) = buffer.filled().split_at(before);
        let (taken, ends) = self.framing.take(read);
        if taken < read.len() {
            // Put before what had already been read ahead.
            let (_, rest) = read.split_at(taken);
            let rest = BytesMut::from(rest);
            let later = std::mem::replace(&mut self.ahead, rest);
            self.ahead.unsplit(later);
            buffer.set_filled(before + taken);
        }
        self.state.has_more.set(!self.ahead.is_empty() || self.has_ended);
        if ends {
            self.state.read();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads ahead while a request is answered, to notice a disconnect. Ready at the end of the
    /// connection.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 1_024];
        while self.ahead.len() < READ_AHEAD && !self.has_ended {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            self.has_ended = buffer.filled().is_empty();
            self.ahead.extend_from_slice(buffer.filled());
            self.state.has_more.set(true);
        }
        if self.has_ended && self.ahead.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Gives the connection's requests access to its state.
    pub(in crate::http) fn introduce(&self, extensions: &mut Extensions) {
        extensions.insert(Rc::clone(&self.state));
    }
}

/// The response to a head that is late. The connection ends after it.
fn request_timeout(ids: &RequestIds) -> String {
    let problem = Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        format!("The request's head did not arrive within {HEAD_SECONDS} seconds."),
    );
    let problem = problem.to_json();
    let (date, id, length) = (HttpDate::from(SystemTime::now()), ids.next(), problem.len());
    format!(
        "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
         content-type: application/problem+json\r\ncontent-length: {length}\r\n\
         x-request-id: {id}\r\ndate: {date}\r\n\r\n{problem}"
    )
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        let state = Rc::clone(&connection.state);
        if state.is_late() {
            // No response is in progress, so this is the response. It is lost if the client no
            // longer reads.
            let response = request_timeout(&state.connections.ids);
            let _ = connection.stream.try_write(response.as_bytes());
            state.deadline.set(None);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = connection.poll_request(context, buffer);
        if buffer.filled().len() > before && connection.framing.is_within_request() {
            state.received();
        }
        if polled.is_pending() {
            state.wait(context);
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, state, .. } = self.get_mut();
        if state.is_too_slow() {
            tracing::debug!("disconnected a client that read its response too slowly");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let polled = Pin::new(stream).poll_write(context, bytes);
        match &polled {
            Poll::Ready(Ok(written)) => state.sent(*written),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                state.sent(0);
                state.wait(context);
            }
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
