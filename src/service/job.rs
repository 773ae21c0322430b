//! One request for ad copy, from the brief to ranked variants: rounds of candidates until enough passed the checks or
//! the time is up, then the composer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use crate::domain::brand_kit::BrandKit;
use crate::domain::brief::Language;
use crate::domain::channel::{self, Target};
use crate::domain::check::Ground;
use crate::domain::rank::Facts;
use crate::engine::request::{
    Candidate, ChatMessage, FinishReason, GenerationError, GenerationEvent, GenerationRequest, Generator, Refusal,
    Role, SamplingParams,
};
use crate::service::ad_copy::{
    AdCopy, AdCopyError, AdCopyEvent, AdCopyRequest, Fallback, Scores, Source, Timing, Usage, Variant,
};
use crate::service::library::Library;
use crate::service::pool::{Judge, Pool, Text, all_dropped};

/// Rounds of candidates at most. Three: a fourth rarely finds what three did not, and doubles the tail of latency.
const ROUNDS: u64 = 3;
/// Candidates beyond what is missing, since some fail the checks; decoding a few more together costs little.
const SPARE_CANDIDATES: usize = 3;
/// Candidates of one submission at most.
const MAX_CANDIDATES: usize = 24;
/// Used when the caller sets none. Long enough for a busy server, short enough for a person.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// Kept back from the deadline for checking, composing and answering.
const MARGIN: Duration = Duration::from_millis(20);
/// Composed texts asked for beyond what is missing, since some repeat what the model wrote.
const SPARE_COMPOSED: usize = 8;
/// The id of a model that is none.
const NO_MODEL: &str = "template";
/// Seeds stay below it, so that every JSON reader can repeat them.
const SEED_LIMIT: u64 = 1 << 53;

/// A request whose names are resolved.
pub struct Job {
    generator: Arc<dyn Generator>,
    library: Arc<Library>,
    request: AdCopyRequest,
    target: Target,
    kit: BrandKit,
    language: Language,
    seed: u64,
    started: Instant,
    finish_by: Instant,
}

/// The generations of one round, each with the field it writes.
pub type Round = SelectAll<futures_util::stream::BoxStream<'static, (usize, GenerationEvent)>>;

impl Job {
    /// Resolves names and submits the first round, so that refusals come back at once. Without a round the model has no
    /// part in this.
    pub fn prepare(
        generator: Arc<dyn Generator>,
        library: Arc<Library>,
        mut request: AdCopyRequest,
        started: Instant,
    ) -> Result<(Self, Option<Round>), AdCopyError> {
        let target = library
            .channels
            .resolve(&request.brief.channel)
            .map_err(|error| AdCopyError::UnknownChannel { given: error.given, suggestion: error.suggestion })?;
        let kit = match &request.brief.brand_kit {
            Some(id) => library
                .brand_kits
                .get(id)
                .cloned()
                .map_err(|error| AdCopyError::UnknownBrandKit { given: error.given, suggestion: error.suggestion })?,
            None => BrandKit::default(),
        };
        if request.brief.brand_kit.is_some() {
            kit.apply(&mut request.brief);
        }
        let language = request.brief.resolved_language();
        let seed = request.sampling.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().1 % SEED_LIMIT);
        let deadline = request.deadline.unwrap_or(DEFAULT_DEADLINE);
        // Half of a very short deadline is still of use to the model.
        let finish_by = started + deadline.saturating_sub(MARGIN).max(deadline / 2);
        let job = Self { generator, library, request, target, kit, language, seed, started, finish_by };
        let first = job.submit_first()?;
        Ok((job, first))
    }

    fn submit_first(&self) -> Result<Option<Round>, AdCopyError> {
        if let Some(model) = self.generator.model()
            && !model.languages.is_empty()
            && !model.languages.iter().any(|code| code == self.language.code())
        {
            return match self.request.fallback {
                Fallback::Template => Ok(None),
                Fallback::None => {
                    Err(AdCopyError::LanguageUnsupported { model: model.id, language: self.language.code() })
                }
            };
        }
        let refusal = match self.submit_round(0, &vec![0; self.target.fields.len()]) {
            Ok(round) => return Ok(Some(round)),
            Err(refusal) => refusal,
        };
        let is_load = matches!(refusal, Refusal::QueueFull { .. } | Refusal::NotReady { .. } | Refusal::Draining);
        // With a deadline the composer answers for an engine that cannot; without one the caller should come back.
        if self.request.fallback == Fallback::None || (is_load && self.request.deadline.is_none()) {
            return Err(refusal.into());
        }
        if !is_load {
            tracing::warn!(reason = %refusal, "the model cannot take a prompt, the composer answers");
        }
        Ok(None)
    }

    /// Writes, and sends what happens. Ends early when nobody listens any more.
    pub async fn run(self, first: Option<Round>, events: mpsc::Sender<AdCopyEvent>) {
        let last = match self.write(first, &events).await {
            Some(Ok(answer)) => {
                for variant in &answer.variants {
                    if events.send(AdCopyEvent::Variant(Box::new(variant.clone()))).await.is_err() {
                        return;
                    }
                }
                AdCopyEvent::Done(Box::new(answer))
            }
            Some(Err(error)) => AdCopyEvent::Failed(error),
            None => return,
        };
        // Nobody may be left to read it.
        let _ = events.send(last).await;
    }

    /// `None` when the reader is gone.
    async fn write(
        &self,
        first: Option<Round>,
        events: &mpsc::Sender<AdCopyEvent>,
    ) -> Option<Result<AdCopy, AdCopyError>> {
        let (fields, brief) = (self.target.fields.clone(), self.request.brief.clone());
        let (library, kit_facts) = (Arc::clone(&self.library), self.kit.facts.clone());
        let judge = Judge {
            brief: &brief,
            language: self.language,
            ground: Ground::new(&brief, &kit_facts, self.language, &library.claims),
            facts: Facts::of(&brief, &kit_facts),
        };
        let mut pools: Vec<Pool> = fields.iter().map(|_| Pool::default()).collect();
        let mut tally = Tally::default();
        let mut round = first;
        for number in 1..=ROUNDS {
            let Some(mut running) = round.take() else { break };
            let outcome = self.gather(&mut running, events, &mut tally).await?;
            // Whatever still runs is cancelled here.
            drop(running);
            for (field, (pool, candidates)) in fields.iter().zip(pools.iter_mut().zip(outcome)) {
                pool.add_candidates(candidates, field, &judge);
            }
            let have: Vec<usize> = pools.iter().map(Pool::len).collect();
            let missing = fields.iter().zip(&have).any(|(field, have)| *have < self.wanted(field));
            if missing && number < ROUNDS && Instant::now() < self.finish_by && tally.error.is_none() {
                round = self.submit_round(number, &have).ok();
            }
        }
        let mut written = fields.iter().zip(&pools).filter(|(field, _)| field.kind.is_written());
        if self.request.fallback == Fallback::None && written.any(|(_, pool)| pool.len() == 0) {
            return Some(Err(self.nothing_written(&tally)));
        }
        for (field, pool) in fields.iter().zip(&mut pools) {
            let (have, wanted) = (pool.len(), self.wanted(field));
            if have < wanted && (self.request.fallback == Fallback::Template || !field.kind.is_written()) {
                let (composer, asked) = (&self.library.composer, wanted - have + SPARE_COMPOSED);
                let composed = composer.compose(&brief, self.language, field, asked, self.seed);
                pool.add_composed(composed, wanted, field, &judge);
                if pool.len() == 0 && field.kind.is_written() {
                    pool.add_composed(composer.neutral(self.language).to_vec(), 1, field, &judge);
                }
            }
        }
        Some(self.answer(&fields, pools, &tally))
    }

    /// Texts to gather for a field: one for each variant, and in a set no fewer than the channel asks for.
    fn wanted(&self, field: &channel::Field) -> usize {
        let least = if self.target.is_set() { field.items_min } else { 1 };
        if field.kind.is_written() { self.request.n.max(least) } else { 1 }
    }

    fn nothing_written(&self, tally: &Tally) -> AdCopyError {
        if let Some(error) = &tally.error
            && !matches!(error, GenerationError::DeadlinePassed { .. })
        {
            return AdCopyError::Generation(error.clone());
        }
        if Instant::now() >= self.finish_by || tally.error.is_some() {
            let deadline = self.request.deadline.unwrap_or(DEFAULT_DEADLINE);
            return AdCopyError::DeadlinePassed { deadline_ms: deadline.as_millis() as u64 };
        }
        AdCopyError::NothingUsable { candidates: tally.candidates }
    }

    /// Asks for what the fields lack. Round 0 asks for all of them.
    fn submit_round(&self, number: u64, have: &[usize]) -> Result<Round, Refusal> {
        let mut round = SelectAll::new();
        for (index, (field, have)) in self.target.fields.iter().zip(have).enumerate() {
            let wanted = self.wanted(field);
            if !field.kind.is_written() || *have >= wanted {
                continue;
            }
            let candidates = (wanted - have + SPARE_CANDIDATES).min(MAX_CANDIDATES);
            let generation = self.generator.submit(self.generation_request(field, index, number, candidates))?;
            let events = ReceiverStream::new(generation.events);
            round.push(events.map(move |event| (index, event)).boxed());
        }
        Ok(round)
    }

    fn generation_request(
        &self,
        field: &channel::Field,
        index: usize,
        round: u64,
        candidates: usize,
    ) -> GenerationRequest {
        let prompts = &self.library.prompts;
        let prompt = prompts.render(&self.request.brief, self.language, field, &self.kit.voice, &self.kit.facts);
        let mut messages = vec![ChatMessage { role: Role::System, content: prompt.system }];
        for (asked, answered) in prompt.examples {
            messages.push(ChatMessage { role: Role::User, content: asked });
            messages.push(ChatMessage { role: Role::Assistant, content: answered });
        }
        messages.push(ChatMessage { role: Role::User, content: prompt.user });
        let (choice, defaults) = (&self.request.sampling, prompts.sampling(self.language, field.kind));
        let needed = prompts.max_new_tokens(self.language, field);
        GenerationRequest {
            messages,
            prefix: String::new(),
            candidates,
            sampling: SamplingParams {
                temperature: choice.temperature.unwrap_or(defaults.temperature),
                top_k: choice.top_k.unwrap_or(defaults.top_k),
                top_p: choice.top_p.unwrap_or(defaults.top_p),
                min_p: choice.min_p.unwrap_or(defaults.min_p),
                repetition_penalty: choice.repetition_penalty.unwrap_or(defaults.repetition_penalty),
                // Rounds and fields draw from streams of their own.
                seed: self.seed ^ (round << 32 | index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                max_new_tokens: choice.max_new_tokens.map_or(needed, |most| most.min(needed)),
                // One text is asked for; whatever follows an empty line, or any line of a short text, is another.
                stop: vec![if field.kind == channel::FieldKind::Paragraph { "\n\n" } else { "\n" }.to_owned()],
            },
            priority: self.request.priority,
            deadline: Some(self.finish_by),
            cache_scope: self.request.cache_scope,
        }
    }

    /// Waits for a round's candidates, per field, until all are there or the time is up. `None`: the reader is gone.
    async fn gather(
        &self,
        round: &mut Round,
        events: &mpsc::Sender<AdCopyEvent>,
        tally: &mut Tally,
    ) -> Option<Vec<Vec<Candidate>>> {
        let mut candidates: Vec<Vec<Candidate>> = vec![Vec::new(); self.target.fields.len()];
        let time_up = tokio::time::sleep_until(self.finish_by.into());
        tokio::pin!(time_up);
        loop {
            let (index, event) = tokio::select! {
                biased;
                () = events.closed() => return None,
                next = round.next() => match next {
                    Some(next) => next,
                    None => return Some(candidates),
                },
                () = &mut time_up => return Some(candidates),
            };
            match event {
                GenerationEvent::Text { candidate, delta } => {
                    let field = self.target.fields[index].name.clone();
                    let token = AdCopyEvent::Token { variant: candidate, field, text: delta };
                    if events.send(token).await.is_err() {
                        return None;
                    }
                }
                GenerationEvent::Finished(candidate) => {
                    tally.candidates += 1;
                    tally.usage.completion_tokens += candidate.tokens;
                    candidates[index].push(candidate);
                }
                GenerationEvent::Done(stats) => {
                    tally.usage.prompt_tokens += stats.prompt_tokens;
                    tally.usage.cached_prompt_tokens += stats.cached_prompt_tokens;
                    if !tally.timed {
                        (tally.timing.queue, tally.timing.ttft, tally.timed) = (stats.queue, stats.ttft, true);
                    }
                }
                GenerationEvent::Failed(error) => tally.error = Some(error),
            }
        }
    }

    fn answer(&self, fields: &[Arc<channel::Field>], pools: Vec<Pool>, tally: &Tally) -> Result<AdCopy, AdCopyError> {
        let count = fields.iter().zip(&pools).filter(|(field, _)| field.kind.is_written()).map(|(_, pool)| pool.len());
        let count = count.max().unwrap_or_else(|| pools.iter().map(Pool::len).max().unwrap_or(0)).min(self.request.n);
        if count == 0 {
            return Err(AdCopyError::NothingUsable { candidates: tally.candidates });
        }
        let variants: Vec<Variant> = (0..count).map(|number| variant(number, fields, &pools)).collect();
        let assets = self.target.is_set().then(|| {
            let texts = |(field, pool): (&Arc<channel::Field>, &Pool)| {
                let texts = pool.texts().iter().take(field.items_max).map(|text| text.text.clone());
                (field.name.clone(), texts.collect())
            };
            fields.iter().zip(&pools).map(texts).collect()
        });
        let by_model = pools.iter().flat_map(Pool::texts).any(|text| text.source == Source::Model);
        let model = self.generator.model().filter(|_| by_model).map_or_else(|| NO_MODEL.to_owned(), |model| model.id);
        Ok(AdCopy {
            id: format!("gen_{}", Uuid::now_v7().simple()),
            created: jiff::Timestamp::now(),
            model,
            language: self.language,
            channel: self.request.brief.channel.clone(),
            variants,
            seed: self.seed,
            assets,
            dropped: all_dropped(pools),
            usage: tally.usage,
            timing: Timing { total: self.started.elapsed(), ..tally.timing },
        })
    }
}

/// Sums over the generations of a request.
#[derive(Debug, Default)]
struct Tally {
    usage: Usage,
    timing: Timing,
    /// Whether the first generation's times were taken.
    timed: bool,
    candidates: usize,
    error: Option<GenerationError>,
}

/// Joins the fields' texts of one rank. A field with fewer texts repeats its last.
fn variant(number: usize, fields: &[Arc<channel::Field>], pools: &[Pool]) -> Variant {
    let chosen: Vec<(&channel::Field, &[Text], usize)> = fields
        .iter()
        .zip(pools)
        .filter(|(_, pool)| pool.len() > 0)
        .map(|(field, pool)| (field.as_ref(), pool.texts(), number.min(pool.len() - 1)))
        .collect();
    let mut scores = Scores::default();
    let (mut score, mut facts_used) = (0.0, Vec::new());
    let share = 1.0 / chosen.len().max(1) as f32;
    for (_, texts, index) in &chosen {
        let (own, total) = texts[*index].scores_beside(&texts[..*index]);
        scores.coverage += own.coverage * share;
        scores.fluency += own.fluency * share;
        scores.novelty += own.novelty * share;
        scores.fill += own.fill * share;
        score += total * share;
        for fact in &texts[*index].facts_used {
            if !facts_used.contains(fact) {
                facts_used.push(fact.clone());
            }
        }
    }
    let texts = || chosen.iter().map(|(_, texts, index)| &texts[*index]);
    // What is copied from the brief has no author; one composed text makes the whole a template's.
    let mut written = chosen.iter().filter(|(field, _, _)| field.kind.is_written()).peekable();
    let by_model = written.peek().is_some() && written.all(|(_, texts, index)| texts[*index].source == Source::Model);
    Variant {
        id: format!("var_{}", Uuid::now_v7().simple()),
        fields: chosen.iter().map(|(field, texts, index)| texts[*index].field(field)).collect(),
        text: texts().map(|text| text.text.as_str()).collect::<Vec<_>>().join("\n"),
        source: if by_model { Source::Model } else { Source::Template },
        score,
        scores,
        facts_used,
        ungrounded: Vec::new(),
        finish_reason: texts().map(|text| text.finish_reason).next().unwrap_or(FinishReason::Stop),
    }
}
