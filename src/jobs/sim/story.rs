//! Events and effects in plain words, for the story of a run.

use super::super::effect::{Answer, Effect};
use super::super::event::Event;

pub(super) fn event(event: &Event) -> String {
    match event {
        Event::Submit { ready, .. } => format!("{} specs are to become jobs", ready.len()),
        Event::Restore { jobs, .. } => format!("a new daemon, with {} records", jobs.len()),
        Event::Control { id, verb, .. } => format!("{verb:?} job {id}"),
        Event::SpeedMax { id, rate, .. } => format!("job {id} may do {rate:?} bytes a second"),
        Event::Active { most, .. } => format!("{most} jobs may run at once"),
        Event::Dismiss { id, .. } => format!("dismiss job {id}"),
        Event::Ask { id, .. } => format!("a question about job {id}"),
        Event::WhoWrites { .. } => "who writes there?".to_owned(),
        Event::Check { ready, .. } => format!("would {} specs become jobs?", ready.len()),
        Event::CheckOnce { name, .. } => format!("is {name} to be made once?"),
        Event::Opened { id, attempt, result } => match result {
            Ok(_) => format!("the devices of job {id} are open (attempt {attempt})"),
            Err(why) => format!("the devices of job {id} are not open (attempt {attempt}): {why:?}"),
        },
        Event::Locked { id, result, .. } => format!("the files of job {id} are locked: {result:?}"),
        Event::BatchLocked { batch, result } => format!("the files of batch {batch} are locked: {result:?}"),
        Event::Closed { id } => format!("the devices of job {id} are closed"),
        Event::Recorded { ids } => format!("the records of {ids:?} are on disk"),
        Event::RecordsFail { why } => format!("records cannot be written: {why}"),
        Event::BatchRecorded { batch, result } => format!("the records of batch {batch} are on disk: {result:?}"),
        Event::Piece { id, piece } => format!("job {id}: {piece:?}"),
        Event::StepEnded { id, .. } => format!("job {id}: its step has ended"),
        Event::StepRefused { id, error } => format!("job {id}: its step was refused: {error}"),
        Event::HolesFound { id, known, holes } => format!("job {id}: of {known:?} holes are {holes:?}"),
        Event::Quiet { id } => format!("job {id} is quiet"),
        Event::Flushed { id, run, dest, result } => {
            format!("job {id}, run {run}: destination {dest} flushed {result:?}")
        }
        Event::Behind { id, dest, why, owes } => {
            format!("job {id}: destination {dest} is behind: {why:?}, owes {owes}")
        }
        Event::Answered { id, dest } => format!("job {id}: destination {dest} has answered"),
        Event::Tick => "the time has come".to_owned(),
        Event::Stop { .. } => "stop".to_owned(),
    }
}

pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Open { card, attempt, .. } => format!("open the devices of job {} (attempt {attempt})", card.id),
        Effect::Lock { id, .. } => format!("lock the files of job {id}"),
        Effect::LockBatch { batch, .. } => format!("lock the files of batch {batch}"),
        Effect::Close { id, answer, .. } => format!("close devices of job {id}, answer: {answer}"),
        Effect::Record(record) => {
            let durable: Vec<_> = record.dests.iter().map(|dest| &dest.durable).collect();
            let (id, state, claimed) = (record.id, record.state.as_str(), record.claimed);
            format!("record job {id}: {state}, claimed {claimed}, durable {durable:?}")
        }
        Effect::RecordBatch { batch, records } => {
            format!("record batch {batch}: {:?}", records.iter().map(|record| record.id).collect::<Vec<_>>())
        }
        Effect::Forget(id) => format!("forget job {id}"),
        Effect::Start(start) => {
            let (id, work, without) = (start.card.id, &start.request.work, start.request.without);
            let range = start.request.dests.first().map(|dest| (dest.sector.get(), dest.count.get()));
            let kind = match work {
                crate::kcopyd::Work::Copy(_) => "copy",
                crate::kcopyd::Work::Zero => "zero",
                crate::kcopyd::Work::Compare(_) => "compare",
                crate::kcopyd::Work::Pattern(_) => "pattern",
                crate::kcopyd::Work::ComparePattern(_) => "look for the pattern",
            };
            format!("start a step of job {id}: {kind} from {} on, at {range:?}, without {without:?}", start.first)
        }
        Effect::FindHoles { id, range, .. } => format!("look for holes of job {id} in {range:?}"),
        Effect::HashZeros { id, range, .. } => format!("hash zeros for job {id}: {range:?}"),
        Effect::Pause(id) => format!("pause the step of job {id}"),
        Effect::Resume(id) => format!("resume the step of job {id}"),
        Effect::Cancel(id) => format!("cancel the step of job {id}"),
        Effect::GiveUp(id, dests) => format!("job {id} gives up {dests:?}"),
        Effect::LeaveBehind(id, dests) => format!("job {id} leaves {dests:?} behind"),
        Effect::Wake(id) => format!("wake the engine for job {id}"),
        Effect::Flush { id, run, dest, .. } => format!("flush destination {dest} of job {id}, run {run}"),
        Effect::EnsureClient(card) => format!("a client for job {}", card.id),
        Effect::Post(change) => {
            let old = change.old.map_or("-", |state| state.as_str());
            format!("tell: job {} {old} {} ({:?})", change.id, change.new.as_str(), change.reason)
        }
        Effect::Answer(answer) => match answer {
            Answer::Submit(_, result) => match result {
                Ok(made) => format!("answer: jobs {:?}", made.ids),
                Err(not_made) => format!("answer: refused, {}", not_made.refusal.error),
            },
            Answer::Check(_, result) => format!("answer: {:?}", result.as_ref().err()),
            Answer::Done(_, result) => format!("answer: {result:?}"),
            Answer::Over(_) => "answer: it is over".to_owned(),
            Answer::WhoWrites(_, who) => format!("answer: {who:?}"),
        },
    }
}
