//! The event stream of a request: bounded in time, and always ended by one `done` or `error` event.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use crate::http::drain::Drain;
use crate::http::middleware::observe::RequestFacts;
use crate::http::problem::Problem;
use crate::http::request_id::RequestId;
use crate::http::state::AppState;
use crate::http::wire::ad_copy_answer::{DoneEvent, TokenEvent, VariantBody};
use crate::service::ad_copy::AdCopyEvent;

/// Dropping the response drops the receiver, which cancels the work.
pub fn respond(events: Receiver<AdCopyEvent>, state: &AppState, id: RequestId, facts: RequestFacts) -> Response {
    let config = state.http();
    let writer = Writer {
        events: Some(events),
        deadline: Instant::now() + config.request_timeout(),
        limit: config.request_timeout(),
        drain: state.drain().clone(),
        id,
        facts,
    };
    let keep_alive = KeepAlive::new().interval(config.sse_keep_alive());
    let mut response = Sse::new(writer.into_stream()).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Some proxies hold a response back unless told not to.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

struct Writer {
    /// Taken when the last event was written.
    events: Option<Receiver<AdCopyEvent>>,
    deadline: Instant,
    limit: Duration,
    drain: Drain,
    id: RequestId,
    facts: RequestFacts,
}

impl Writer {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut writer| async move {
            let event = writer.next().await?;
            Some((Ok(event), writer))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        let events = self.events.as_mut()?;
        let received = tokio::select! {
            biased;
            event = events.recv() => Ok(event),
            () = tokio::time::sleep_until(self.deadline) => {
                Err(Problem::request_timeout(self.limit.as_millis() as u64))
            }
            () = self.drain.closing() => Err(Problem::draining()),
        };
        Some(match received {
            Ok(Some(AdCopyEvent::Token { variant, field, text })) => {
                self.event("token", &TokenEvent { variant, field, text })
            }
            Ok(Some(AdCopyEvent::Variant(variant))) => self.event("variant", &VariantBody::from(*variant)),
            Ok(Some(AdCopyEvent::Done(answer))) => {
                self.events = None;
                self.facts.set_tokens(answer.usage.prompt_tokens, answer.usage.completion_tokens);
                self.event("done", &DoneEvent::from(*answer))
            }
            Ok(Some(AdCopyEvent::Failed(error))) => self.fail(error.into()),
            Ok(None) => self.fail(Problem::internal("the copy service ended without a last event")),
            Err(problem) => self.fail(problem),
        })
    }

    fn event(&mut self, name: &'static str, data: &impl Serialize) -> Event {
        match Event::default().event(name).json_data(data) {
            Ok(event) => event,
            Err(error) => self.fail(Problem::internal(format!("an event cannot be serialized: {error}"))),
        }
    }

    /// The last event of a stream that went wrong.
    fn fail(&mut self, problem: Problem) -> Event {
        self.events = None;
        let body = serde_json::to_string(&problem.body(self.id.as_str())).unwrap_or_default();
        self.facts.set_stream_problem(problem);
        Event::default().event("error").data(body)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::http::Config;
    use crate::http::server::Server;
    use crate::http::testing;
    use crate::service::ad_copy::AdCopyError;

    fn token(text: &str) -> AdCopyEvent {
        AdCopyEvent::Token { variant: 0, field: "text".to_owned(), text: text.to_owned() }
    }

    fn start(state: &AppState) -> (Sender<AdCopyEvent>, Response) {
        let (sender, receiver) = channel(8);
        (sender, respond(receiver, state, RequestId::new(), RequestFacts::default()))
    }

    async fn text_of(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn tokens_are_followed_by_one_done_event() {
        let state = testing::state(Config::default());
        let (sender, response) = start(&state);
        sender.send(token("dry\ngear")).await.unwrap();
        sender.send(AdCopyEvent::Done(Box::new(testing::answer()))).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = text_of(response).await;
        assert!(text.starts_with("event: token\ndata: {\"variant\":0,\"field\":\"text\",\"text\":\"dry\\ngear\"}\n\n"));
        let done = text.split("event: done\ndata: ").nth(1).unwrap();
        let done: serde_json::Value = serde_json::from_str(done.trim()).unwrap();
        assert_eq!((&done["id"], &done["timing"]["total_ms"]), (&"gen_1".into(), &7.into()));
    }

    #[tokio::test]
    async fn a_failure_ends_the_stream_with_a_problem() {
        let state = testing::state(Config::default());
        let (sender, response) = start(&state);
        sender.send(AdCopyEvent::Failed(AdCopyError::DeadlinePassed { deadline_ms: 5 })).await.unwrap();
        let text = text_of(response).await;
        assert!(text.starts_with("event: error\n") && text.contains("/problems/deadline-passed"), "{text}");
        let (sender, response) = start(&state);
        drop(sender);
        assert!(text_of(response).await.contains("/problems/internal"), "a service that just stops is our fault");
    }

    #[tokio::test]
    async fn the_overall_bound_holds_inside_the_stream() {
        let state = testing::state(Config { request_timeout_ms: 50, ..Config::default() });
        let (_sender, response) = start(&state);
        assert!(text_of(response).await.contains("was not answered within 50 ms"));
    }

    /// Serves one stream at `/` over a socket, and gives its sender and its client after the first token.
    async fn over_a_socket(state: &AppState) -> (Sender<AdCopyEvent>, TcpStream, tokio::task::JoinHandle<()>) {
        let (senders, mut streams) = channel(1);
        let shared = state.clone();
        let handler = move || {
            let (senders, state) = (senders.clone(), shared.clone());
            async move {
                let (sender, response) = start(&state);
                senders.send(sender).await.unwrap();
                response
            }
        };
        let server = Server::bind(state.http()).await.unwrap();
        let addr = server.local_addr();
        let router = Router::new().route("/", get(handler));
        let serving = tokio::spawn(server.serve(router, Router::new(), state.drain().clone()));
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let sender: Sender<AdCopyEvent> = streams.recv().await.unwrap();
        sender.send(token("first")).await.unwrap();
        let mut received = String::new();
        while !received.contains("first") {
            let mut buffer = [0; 1024];
            let read = client.read(&mut buffer).await.unwrap();
            received.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        (sender, client, serving)
    }

    fn local(config: Config) -> Config {
        Config { addr: ([127, 0, 0, 1], 0).into(), ..config }
    }

    #[tokio::test]
    async fn a_client_that_leaves_closes_the_receiver() {
        let state = testing::state(local(Config::default()));
        let (sender, client, _) = over_a_socket(&state).await;
        drop(client);
        tokio::time::timeout(Duration::from_secs(10), sender.closed()).await.expect("the work is cancelled");
    }

    #[tokio::test]
    async fn a_drain_lets_a_stream_finish_and_ends_it_with_an_event_when_the_grace_is_over() {
        for finishes in [true, false] {
            let state = testing::state(local(Config { drain_grace_ms: 300, ..Config::default() }));
            let (sender, mut client, serving) = over_a_socket(&state).await;
            state.drain().start();
            if finishes {
                sender.send(AdCopyEvent::Done(Box::new(testing::answer()))).await.unwrap();
            }
            let mut rest = String::new();
            client.read_to_string(&mut rest).await.unwrap();
            let last = if finishes { "event: done" } else { "/problems/draining" };
            assert!(rest.contains(last), "{rest}");
            serving.await.unwrap();
        }
    }
}
