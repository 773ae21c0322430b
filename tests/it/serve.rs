//! The main job from outside: the real binary, the real model, HTTP.

use serde_json::{Value, json};

use crate::support::server::{TestServer, block_on};

fn brief() -> Value {
    json!({
        "product": {"name": "TrailLite 40", "brand": "Norrbo", "category": "hiking backpack",
                    "attributes": ["waterproof", "900 g", "3-year warranty"], "price": "$89", "offer": "free returns"},
        "audience": {"segment": "weekend hikers"}, "channel": "google_rsa.headline", "language": "en",
        "tone": "friendly", "n": 3, "sampling": {"seed": 7}
    })
}

fn texts(answer: &Value) -> Vec<String> {
    let variants = answer["variants"].as_array().expect("variants");
    variants.iter().map(|variant| variant["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn the_model_writes_variants_that_fit_and_the_same_again_with_the_same_seed() {
    let server = TestServer::ready();
    let (status, first) = server.post("/v1/ad-copy", &brief());
    assert_eq!(status, 200, "{first}");
    let variants = first["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 3, "{first}");
    assert!(variants.iter().any(|variant| variant["source"] == "model"), "{first}");
    for variant in variants {
        let length = &variant["length"]["headline"];
        assert!(length["count"].as_u64().unwrap() <= 30, "{variant}");
        assert_eq!(length["max"], 30);
        assert_eq!(variant["grounding"]["ungrounded"], json!([]), "{variant}");
        assert_eq!(variant["policy"]["verdict"], "allow");
    }
    assert!(first["usage"]["prompt_tokens"].as_u64().unwrap() > 0, "{first}");
    assert_eq!(first["labels"]["ai_generated"], true);
    let (_, second) = server.post("/v1/ad-copy", &brief());
    assert_eq!(texts(&first), texts(&second));
    assert!(second["usage"]["cached_prompt_tokens"].as_u64().unwrap() > 0, "the prompt is cached: {second}");
}

#[test]
fn it_listens_before_the_model_is_loaded_and_says_so() {
    let server = TestServer::listening(&[]);
    assert_eq!(server.get("/livez").0, 200);
    let mut reasons = Vec::new();
    loop {
        let (status, body) = server.get("/readyz");
        if status == 200 {
            break;
        }
        assert_eq!(status, 503, "{body}");
        reasons.push(body);
    }
    assert!(reasons.iter().all(|reason| reason.contains("model loading")), "{reasons:?}");
    let (status, models) = server.get("/v1/models");
    assert_eq!(status, 200);
    assert!(models.contains("\"ready\":true"), "{models}");
    let (_, metrics) = server.get("/metrics");
    assert!(metrics.contains("adquill_http_requests_total"), "{metrics}");
}

#[test]
fn chinese_is_answered_although_the_model_has_none() {
    let server = TestServer::ready();
    let (status, answer) =
        server.post("/v1/ad-copy", &json!({"product": "智能手机 | 高像素相机 | 强大处理器", "n": 3}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["language"], "zh");
    for variant in answer["variants"].as_array().unwrap() {
        assert_eq!(variant["source"], "template");
        assert!(variant["text"].as_str().unwrap().chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{variant}");
    }
}

#[test]
fn a_stream_sends_tokens_then_checked_variants_then_done() {
    let server = TestServer::ready();
    let mut body = brief();
    body["stream"] = json!(true);
    let text = block_on(async {
        let response = reqwest::Client::new().post(server.url("/v1/ad-copy")).json(&body).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response.text().await.unwrap()
    });
    let names: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("event: ").or(line.strip_prefix("event:"))).collect();
    assert!(names.contains(&"token"), "{text}");
    assert_eq!(names.iter().filter(|name| **name == "variant").count(), 3, "{text}");
    assert_eq!(names.last(), Some(&"done"), "{text}");
}

#[test]
fn sixty_four_clients_at_once_are_answered_or_refused_with_a_hint() {
    let server = TestServer::ready();
    let outcomes = block_on(async {
        let client = reqwest::Client::new();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..64 {
            let (client, url) = (client.clone(), server.url("/v1/ad-copy"));
            let body = json!({"product": {"name": format!("Lamp {number}"), "attributes": ["dimmable", "oak base"]},
                              "n": 3, "sampling": {"seed": number, "max_new_tokens": 24}});
            tasks.spawn(async move {
                let response = client.post(url).json(&body).send().await.unwrap();
                (response.status().as_u16(), response.headers().contains_key("retry-after"))
            });
        }
        tasks.join_all().await
    });
    assert!(outcomes.iter().all(|(status, hint)| *status == 200 || (*status == 503 && *hint)), "{outcomes:?}");
    assert!(outcomes.iter().any(|(status, _)| *status == 200), "{outcomes:?}");
    if let Some(bytes) = server.peak_memory_bytes() {
        assert!(bytes < 1 << 30, "{} MiB at the peak", bytes >> 20);
    }
}

/// Small seeded generator: the same thousand requests every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }
}

fn hostile(dice: &mut Dice) -> (String, Vec<u8>) {
    let path = ["/v1/ad-copy", "/v1/models", "/v1/nothing", "/docs/../../etc/passwd", "/%ff", "/readyz"][dice.roll(6)];
    let mut body = serde_json::to_vec(&brief()).unwrap();
    match dice.roll(10) {
        0 => body.truncate(dice.roll(body.len())),
        1 => {
            for _ in 0..4 {
                let at = dice.roll(body.len());
                body[at] = dice.roll(256) as u8;
            }
        }
        2 => body = "[".repeat(50_000).into_bytes(),
        3 => body = json!({"product": "x".repeat(dice.roll(2_000_000))}).to_string().into_bytes(),
        4 => {
            body = json!({"product": {"name": "\u{0}\u{202e}<|im_end|>{{7*7}}"}, "n": 1, "deadline_ms": 200})
                .to_string()
                .into_bytes()
        }
        5 => {
            body =
                json!({"product": {"name": "A", "nmae": 1}, "n": -1, "sampling": {"top_p": 9}}).to_string().into_bytes()
        }
        6 => body = json!({"product": vec!["a"; 1000]}).to_string().into_bytes(),
        7 => body = br#"{"product": "A", "n": 1e999}"#.to_vec(),
        8 => {
            body = json!({"product": {"name": "A"}, "channel": "../../etc", "language": "xx"}).to_string().into_bytes()
        }
        _ => body = (0..dice.roll(300)).map(|_| dice.roll(256) as u8).collect(),
    }
    (path.to_owned(), body)
}

#[test]
fn a_thousand_hostile_requests_do_no_harm() {
    let server = TestServer::ready();
    let mut dice = Dice(11);
    let requests: Vec<_> = (0..1000).map(|_| hostile(&mut dice)).collect();
    block_on(async {
        let client = reqwest::Client::new();
        for (path, body) in requests {
            let shown = String::from_utf8_lossy(&body).chars().take(200).collect::<String>();
            // A body over the limit may be cut off while it is still being sent; that is an answer too.
            let sent =
                client.post(server.url(&path)).header("content-type", "application/json").body(body).send().await;
            if let Ok(response) = sent {
                let status = response.status().as_u16();
                assert!(status < 500, "{path} {status} {shown}");
                if status >= 400 {
                    assert_eq!(
                        response.headers()["content-type"],
                        "application/problem+json",
                        "{path} {status} {shown}"
                    );
                }
            }
        }
    });
    assert_eq!(server.post("/v1/ad-copy", &brief()).0, 200);
}

#[test]
fn sigterm_finishes_what_was_accepted_and_exits_with_0() {
    let server = TestServer::ready();
    let mut streaming = brief();
    streaming["stream"] = json!(true);
    let streams = block_on(async {
        let client = reqwest::Client::new();
        let mut responses = Vec::new();
        for _ in 0..4 {
            let mut response = client.post(server.url("/v1/ad-copy")).json(&streaming).send().await.unwrap();
            // Its first event shows that it was accepted.
            let first = response.chunk().await.unwrap().expect("an event");
            responses.push((first.to_vec(), response));
        }
        server.terminate();
        let mut streams = Vec::new();
        for (mut stream, mut response) in responses {
            while let Some(chunk) = response.chunk().await.unwrap() {
                stream.extend_from_slice(&chunk);
            }
            streams.push(String::from_utf8(stream).unwrap());
        }
        streams
    });
    for stream in streams {
        assert!(stream.contains("event: done"), "what was accepted is finished: {stream}");
    }
    assert_eq!(server.wait().code(), Some(0));
}
