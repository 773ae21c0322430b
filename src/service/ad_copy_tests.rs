//! The ad copy service over a generator that answers from a script: what it drops, when it asks again, when the
//! composer steps in, and which refusals and deadlines the caller sees.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use super::ad_copy::{
    AdCopy, AdCopyError, AdCopyEvent, AdCopyRequest, AdCopyService, Fallback, SamplingChoice, Source,
};
use super::library::Library;
use crate::domain::brief::{Brief, Product};
use crate::engine::request::{
    Candidate, FinishReason, Generation, GenerationError, GenerationEvent, GenerationRequest, GenerationStats,
    Generator, ModelInfo, Priority, Readiness, Refusal, Role,
};

/// What a script says to one submission.
enum Reply {
    Texts(&'static [&'static str]),
    Refuse(Refusal),
    Fail(GenerationError),
    /// Accepts and never answers.
    Silence,
}

#[derive(Default)]
struct Scripted {
    /// Used up in order; afterwards every submission gets no texts.
    replies: Mutex<VecDeque<Reply>>,
    asked: Mutex<Vec<GenerationRequest>>,
    /// Senders of silent generations, kept so that they stay open.
    silent: Mutex<Vec<mpsc::Sender<GenerationEvent>>>,
    languages: Vec<String>,
}

impl Generator for Scripted {
    fn submit(&self, request: GenerationRequest) -> Result<Generation, Refusal> {
        self.asked.lock().unwrap().push(request);
        let reply = self.replies.lock().unwrap().pop_front().unwrap_or(Reply::Texts(&[]));
        let (sender, events) = mpsc::channel(64);
        let send = |event| sender.try_send(event).unwrap();
        match reply {
            Reply::Refuse(refusal) => return Err(refusal),
            Reply::Fail(error) => send(GenerationEvent::Failed(error)),
            Reply::Silence => self.silent.lock().unwrap().push(sender),
            Reply::Texts(texts) => {
                // The last one finishes first: the order of arrival must not matter.
                for (index, text) in texts.iter().enumerate().rev() {
                    send(GenerationEvent::Text { candidate: index, delta: (*text).to_owned() });
                    send(GenerationEvent::Finished(Candidate {
                        index,
                        text: (*text).to_owned(),
                        finish_reason: FinishReason::Stop,
                        tokens: 5,
                        mean_logprob: -1.0,
                    }));
                }
                send(GenerationEvent::Done(GenerationStats { prompt_tokens: 100, ..GenerationStats::default() }));
            }
        }
        Ok(Generation { events })
    }

    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }

    fn model(&self) -> Option<ModelInfo> {
        Some(ModelInfo {
            id: "scripted".into(),
            architecture: "llama".into(),
            quantization: "f32".into(),
            parameters: 0,
            context_length: 2048,
            vocab_size: 8,
            languages: self.languages.clone(),
            source: "test".into(),
            sha256: String::new(),
        })
    }
}

fn scripted(replies: impl IntoIterator<Item = Reply>) -> Arc<Scripted> {
    Arc::new(Scripted { replies: Mutex::new(replies.into_iter().collect()), ..Scripted::default() })
}

fn service(generator: &Arc<Scripted>) -> AdCopyService {
    let generator: Arc<dyn Generator> = Arc::<Scripted>::clone(generator);
    AdCopyService::new(generator, Arc::new(Library::embedded().unwrap()))
}

fn request(channel: &str, n: usize) -> AdCopyRequest {
    AdCopyRequest {
        brief: Brief {
            product: Product {
                name: "TrailLite 40".into(),
                brand: Some("Norrbo".into()),
                category: Some("hiking backpack".into()),
                attributes: vec!["waterproof".into(), "900 g".into()],
                price: Some("$89".into()),
                ..Product::default()
            },
            channel: channel.into(),
            banned_terms: vec!["cheap".into()],
            ..Brief::default()
        },
        n,
        sampling: SamplingChoice { seed: Some(7), ..SamplingChoice::default() },
        deadline: None,
        fallback: Fallback::Template,
        priority: Priority::Interactive,
        cache_scope: 0,
    }
}

fn texts(answer: &AdCopy) -> Vec<&str> {
    answer.variants.iter().map(|variant| variant.text.as_str()).collect()
}

fn not_ready() -> Refusal {
    Refusal::NotReady { reason: "model loading".into(), retry_after: Duration::from_secs(1) }
}

#[tokio::test]
async fn faulty_candidates_are_dropped_with_their_reasons_and_the_good_ones_returned() {
    let generator = scripted([Reply::Texts(&[
        "A waterproof hiking backpack that is far too long for a headline",
        "Only 700 g of backpack",
        "A cheap backpack, 900 g",
        "I'm sorry, but I cannot do that.",
        "\"Waterproof, 900 g, ready\"",
        "Waterproof, 900 g, ready!!",
        "Waterproof. 900 g. Ready.",
        "TrailLite 40: hike on, dry",
    ])]);
    let mut request = request("google_rsa.headline", 2);
    request.fallback = Fallback::None;
    let answer = service(&generator).write(request).await.unwrap();
    assert_eq!(answer.variants.len(), 2, "{:?}", texts(&answer));
    assert!(answer.variants.iter().all(|variant| variant.source == Source::Model));
    assert!(texts(&answer).contains(&"Waterproof, 900 g, ready"), "{:?}", texts(&answer));
    assert!(texts(&answer).contains(&"TrailLite 40: hike on, dry"));
    let reasons: Vec<_> = answer.dropped.iter().map(|dropped| dropped.reason).collect();
    for reason in ["over_limit", "ungrounded", "banned_term", "assistant_talk", "near_duplicate"] {
        assert!(reasons.contains(&reason), "{reason} of {reasons:?}");
    }
    assert_eq!((answer.model.as_str(), answer.usage.completion_tokens, answer.seed), ("scripted", 40, 7));
}

#[tokio::test]
async fn what_is_missing_is_asked_again_with_another_seed() {
    let generator = scripted([Reply::Texts(&["Only 700 g of backpack"]), Reply::Texts(&["Waterproof, just 900 g"])]);
    let answer = service(&generator).write(request("google_rsa.headline", 1)).await.unwrap();
    assert_eq!(texts(&answer), ["Waterproof, just 900 g"]);
    let asked = generator.asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].sampling.seed, asked[1].sampling.seed);
    assert_eq!(asked[0].messages.first().map(|message| message.role), Some(Role::System));
}

#[tokio::test]
async fn the_composer_fills_what_the_model_left_open_behind_the_models_texts() {
    let generator = scripted([Reply::Texts(&["Waterproof, just 900 g"])]);
    let answer = service(&generator).write(request("google_rsa.headline", 3)).await.unwrap();
    let sources: Vec<_> = answer.variants.iter().map(|variant| variant.source).collect();
    assert_eq!(sources, [Source::Model, Source::Template, Source::Template]);
    assert!(answer.variants.iter().all(|variant| variant.fields[0].length.count <= 30));
}

#[tokio::test]
async fn without_a_fallback_nothing_usable_is_an_error_after_bounded_rounds() {
    let generator = scripted([]);
    let mut request = request("generic", 1);
    request.fallback = Fallback::None;
    let error = service(&generator).write(request).await.unwrap_err();
    assert_eq!(error, AdCopyError::NothingUsable { candidates: 0 });
    assert_eq!(generator.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_refusal_comes_back_at_once_unless_the_caller_set_a_deadline() {
    for refusal in [not_ready(), Refusal::Draining] {
        let generator = scripted([Reply::Refuse(refusal.clone()), Reply::Refuse(refusal.clone())]);
        let service = service(&generator);
        assert_eq!(service.stream(request("generic", 1)).unwrap_err(), AdCopyError::Refused(refusal));
        let mut hurried = request("generic", 1);
        hurried.deadline = Some(Duration::from_millis(200));
        let answer = service.write(hurried).await.unwrap();
        assert_eq!((answer.variants[0].source, answer.model.as_str()), (Source::Template, "template"));
    }
}

#[tokio::test]
async fn with_a_deadline_and_no_fallback_a_refusal_is_still_an_error() {
    let generator = scripted([Reply::Refuse(not_ready())]);
    let mut request = request("generic", 1);
    (request.fallback, request.deadline) = (Fallback::None, Some(Duration::from_millis(200)));
    assert_eq!(service(&generator).stream(request).unwrap_err(), AdCopyError::Refused(not_ready()));
}

#[tokio::test]
async fn a_silent_model_is_given_up_before_the_deadline() {
    let generator = scripted([Reply::Silence, Reply::Silence]);
    let service = service(&generator);
    let mut request = request("generic", 2);
    request.deadline = Some(Duration::from_millis(60));
    let answer = service.write(request.clone()).await.unwrap();
    assert!(answer.variants.iter().all(|variant| variant.source == Source::Template));
    assert_eq!(answer.variants.len(), 2);
    request.fallback = Fallback::None;
    assert_eq!(service.write(request).await.unwrap_err(), AdCopyError::DeadlinePassed { deadline_ms: 60 });
}

#[tokio::test]
async fn a_failed_step_is_answered_by_the_composer_or_told() {
    let failed = || Reply::Fail(GenerationError::StepFailed);
    let generator = scripted([failed(), failed()]);
    let service = service(&generator);
    let mut request = request("generic", 1);
    assert_eq!(service.write(request.clone()).await.unwrap().variants[0].source, Source::Template);
    request.fallback = Fallback::None;
    assert_eq!(service.write(request).await.unwrap_err(), AdCopyError::Generation(GenerationError::StepFailed));
}

#[tokio::test]
async fn a_language_that_the_model_does_not_write_is_not_asked_of_it() {
    let generator = Arc::new(Scripted { languages: vec!["en".into()], ..Scripted::default() });
    let service = service(&generator);
    let mut request = request("xiaohongshu.title", 2);
    request.brief.product = Product {
        name: "轻野背包".into(),
        attributes: vec!["防水面料".into(), "重900克".into()],
        ..Product::default()
    };
    let answer = service.write(request.clone()).await.unwrap();
    assert!(answer.variants.iter().all(|variant| variant.source == Source::Template));
    assert_eq!((answer.language.code(), answer.variants.len()), ("zh", 2));
    assert!(generator.asked.lock().unwrap().is_empty());
    request.fallback = Fallback::None;
    assert_eq!(
        service.stream(request).unwrap_err(),
        AdCopyError::LanguageUnsupported { model: "scripted".into(), language: "zh" }
    );
}

#[tokio::test]
async fn unknown_names_are_told_with_the_nearest_known_one() {
    let service = service(&scripted([]));
    let error = service.stream(request("google_rsaa", 1)).unwrap_err();
    assert!(matches!(error, AdCopyError::UnknownChannel { suggestion: Some(s), .. } if s == "google_rsa"));
    let mut request = request("generic", 1);
    request.brief.brand_kit = Some("norbo".into());
    let error = service.stream(request).unwrap_err();
    assert!(matches!(error, AdCopyError::UnknownBrandKit { suggestion: Some(s), .. } if s == "norrbo"));
}

#[tokio::test]
async fn a_whole_channel_gives_every_field_and_the_assets() {
    let generator = scripted([
        Reply::Texts(&["Waterproof, just 900 g", "TrailLite 40: hike on, dry"]),
        Reply::Texts(&["A waterproof hiking backpack for $89.", "TrailLite 40 weighs 900 g and keeps dry."]),
    ]);
    let answer = service(&generator).write(request("google_rsa", 2)).await.unwrap();
    for variant in &answer.variants {
        let names: Vec<_> = variant.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["headline", "description", "path"]);
        assert!(variant.fields.iter().all(|field| field.length.count <= field.length.max));
        assert_eq!(variant.source, Source::Model);
    }
    let assets = answer.assets.unwrap();
    assert_eq!(assets.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["headline", "description", "path"]);
    assert!(assets[0].1.len() >= 2 && assets[1].1.len() >= 2, "{assets:?}");
}

#[tokio::test]
async fn a_set_holds_as_many_texts_as_the_channel_asks_for() {
    let answer = service(&scripted([])).write(request("google_rsa", 1)).await.unwrap();
    let assets = answer.assets.unwrap();
    assert_eq!(answer.variants.len(), 1);
    assert!(assets[0].1.len() >= 3, "headlines: {assets:?}");
    assert!(assets[1].1.len() >= 2, "descriptions: {assets:?}");
}

#[tokio::test]
async fn a_variant_with_a_composed_text_is_not_the_models() {
    let generator = scripted([Reply::Texts(&["Waterproof, just 900 g"]), Reply::Texts(&[])]);
    let answer = service(&generator).write(request("google_rsa", 1)).await.unwrap();
    assert_eq!(answer.variants[0].source, Source::Template);
}

#[tokio::test]
async fn without_a_fallback_no_field_is_composed() {
    let generator = scripted([Reply::Texts(&["Waterproof, just 900 g"]), Reply::Texts(&[])]);
    let mut request = request("google_rsa", 1);
    request.fallback = Fallback::None;
    assert!(matches!(service(&generator).write(request).await, Err(AdCopyError::NothingUsable { .. })));
}

#[tokio::test]
async fn a_name_that_may_not_be_said_does_not_keep_the_composer_from_answering() {
    let mut request = request("google_rsa.headline", 1);
    request.brief.banned_terms = vec!["TrailLite".into(), "Norrbo".into(), "hiking backpack".into()];
    let answer = service(&scripted([])).write(request).await.unwrap();
    assert!(!answer.variants[0].text.contains("TrailLite"));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_texts_and_an_absent_one_is_reported() {
    let answer = |seed| async move {
        let mut request = request("generic", 3);
        request.sampling.seed = seed;
        service(&scripted([])).write(request).await.unwrap()
    };
    let (first, again) = (answer(Some(11)).await, answer(Some(11)).await);
    assert_eq!((texts(&first), first.seed), (texts(&again), 11));
    assert_ne!(answer(None).await.seed, answer(None).await.seed);
}

#[tokio::test]
async fn a_stream_brings_tokens_then_variants_then_the_end() {
    let generator = scripted([Reply::Texts(&["Waterproof, just 900 g"])]);
    let mut events = service(&generator).stream(request("google_rsa.headline", 1)).unwrap();
    let mut seen = Vec::new();
    while let Some(event) = events.recv().await {
        seen.push(match event {
            AdCopyEvent::Token { variant: 0, field, text } => format!("token {field} {text}"),
            AdCopyEvent::Variant(variant) => format!("variant {}", variant.text),
            AdCopyEvent::Done(answer) => format!("done {}", answer.variants.len()),
            other => panic!("{other:?}"),
        });
    }
    let expected = ["token headline Waterproof, just 900 g", "variant Waterproof, just 900 g", "done 1"];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn dropping_the_receiver_cancels_the_generation() {
    let generator = scripted([Reply::Silence]);
    let events = service(&generator).stream(request("generic", 1)).unwrap();
    let sender = generator.silent.lock().unwrap().pop().unwrap();
    drop(events);
    // Returns only when the service lets go of its end.
    sender.closed().await;
}
