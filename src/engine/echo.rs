//! A generator without a model, to measure what the service around an engine costs.

use tokio::sync::mpsc;

use super::request::{
    Candidate, FinishReason, Generation, GenerationEvent, GenerationRequest, GenerationStats, Generator, ModelInfo,
    Readiness, Refusal,
};

/// Answers at once with the last message's words, as many as tokens are asked for, each an event of its own: the
/// same shape of work for the service as a real engine. A tool for benchmarks only.
#[derive(Debug, Clone, Copy, Default)]
pub struct EchoGenerator;

impl Generator for EchoGenerator {
    fn submit(&self, request: GenerationRequest) -> Result<Generation, Refusal> {
        let Some(last) = request.messages.last() else {
            return Err(Refusal::Prompt { reason: "it has no messages".to_owned() });
        };
        let words: Vec<&str> = last.content.split_inclusive(' ').take(request.sampling.max_new_tokens).collect();
        let (events, receiver) = mpsc::channel(request.candidates * (words.len() + 1) + 1);
        // The channel holds all events, and its receiver is alive: nothing is lost.
        let send = |event| events.try_send(event).is_ok();
        for candidate in 0..request.candidates {
            for word in &words {
                send(GenerationEvent::Text { candidate, delta: (*word).to_owned() });
            }
            send(GenerationEvent::Finished(Candidate {
                index: candidate,
                text: words.concat(),
                finish_reason: FinishReason::Stop,
                tokens: words.len(),
                mean_logprob: -1.0,
            }));
        }
        let prompt_tokens = request.messages.iter().map(|message| message.content.split(' ').count()).sum();
        send(GenerationEvent::Done(GenerationStats {
            prompt_tokens,
            completion_tokens: request.candidates * words.len(),
            ..GenerationStats::default()
        }));
        Ok(Generation { events: receiver })
    }

    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }

    fn model(&self) -> Option<ModelInfo> {
        Some(ModelInfo {
            id: "echo".to_owned(),
            architecture: "none".to_owned(),
            quantization: "none".to_owned(),
            parameters: 0,
            context_length: usize::MAX,
            vocab_size: 0,
            languages: Vec::new(),
            source: "echo".to_owned(),
            sha256: String::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{collect, request};
    use super::*;

    #[test]
    fn every_candidate_is_the_prompt_cut_to_the_tokens_asked_for() {
        let mut asked = request("dry gear for long hikes");
        asked.candidates = 2;
        asked.sampling.max_new_tokens = 3;
        let outcome = collect(EchoGenerator.submit(asked).unwrap());
        assert_eq!(outcome.texts(), ["dry gear for ", "dry gear for "]);
        assert_eq!(outcome.stats().completion_tokens, 6);
    }

    #[test]
    fn no_messages_are_refused() {
        let mut asked = request("");
        asked.messages.clear();
        assert!(EchoGenerator.submit(asked).is_err());
    }
}
