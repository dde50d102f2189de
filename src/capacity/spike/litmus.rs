//! The litmus test of a plan on a simulated fleet: its expected verdict first, then the verdict, and what the fleet would stand.

use serde::{Deserialize, Serialize};

use crate::capacity::plan::Plan;
use crate::capacity::requirement::Requirement;
use crate::capacity::spike::answer::{Both, Subject};
use crate::capacity::spike::check::{self, CheckedLevel};
use crate::capacity::spike::course::{Course, Phase};
use crate::capacity::spike::expected::Expected;
use crate::capacity::spike::ledger::Trial;
use crate::capacity::spike::lengths::CallLengths;
use crate::capacity::spike::moments::Recovery;
use crate::capacity::spike::{doubts, own, simulated};
use crate::capacity::throughput::Throughput;
use crate::clock::Nanos;
use crate::curve::service_law::{FittedLaw, LevelCalls};
use crate::queueing::fleet::clients::Clients;
use crate::queueing::fleet::simulation::Fleet;
use crate::record::finding::Finding;
use crate::record::run::RunRecord;
use crate::record::slo::Slo;

/// Clients that try again give up a try after this where nobody says otherwise.
const USUAL_TIMEOUT: Nanos = Nanos::from_secs(30);
/// The share of retries that a budget usually allows.
const USUAL_BUDGET: f64 = 0.1;

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// Measured.
    pub run: &'a RunRecord,
    /// Made of it.
    pub plan: &'a Plan,
    /// What must hold.
    pub slo: &'a Slo,
    /// Fitted to the run.
    pub service: FittedLaw,
    /// Replicas that the run measured together, 1 or more.
    pub measured_replicas: u32,
    /// How long calls are.
    pub lengths: CallLengths,
    /// Calls of its levels.
    pub calls: LevelCalls,
    /// Who serves: its law is the fitted one.
    pub fleet: Fleet,
    /// Which requirement of the plan it was sized for; `None`: its size was given.
    pub sized_for: Option<String>,
    /// What it goes through.
    pub course: Course,
    /// Seconds of a spike.
    pub spike_s: f64,
    /// Of everything random.
    pub seed: u64,
}

/// What a plan says of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpectedPhase {
    /// Which.
    pub phase: String,
    /// Calls/s that come; the mean of a phase with a shape.
    pub calls_per_s: f64,
    /// Calls/s of its busiest minute, where it has a shape: it is judged by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_calls_per_s: Option<f64>,
    /// Its word.
    pub expected: Expected,
}

impl ExpectedPhase {
    /// Of each phase, on so many GPUs.
    #[must_use]
    pub fn of_course(throughput: &Throughput, course: &Course, gpus: u64) -> Vec<Self> {
        let of = |phase: &Phase| {
            let peak_calls_per_s = course.average * phase.peak_times();
            Self {
                phase: phase.name.clone(),
                calls_per_s: course.average * phase.times,
                peak_calls_per_s: (!phase.shape.is_empty()).then_some(peak_calls_per_s),
                expected: Expected::of(throughput, gpus as f64, peak_calls_per_s),
            }
        };
        course.phases.iter().map(of).collect()
    }

    /// Calls/s that it is judged by.
    #[must_use]
    pub fn judged_calls_per_s(&self) -> f64 {
        self.peak_calls_per_s.unwrap_or(self.calls_per_s)
    }
}

/// The replicas of a scenario: planned and simulated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScenarioFleet {
    /// Which.
    pub name: String,
    /// Calls/s that come.
    pub calls_per_s: f64,
    /// Replicas of the plan, margins included, spare ones not.
    pub planned: u64,
    /// The fewest that hold the SLO; `None` where no number does.
    pub needed: Both<Option<u32>>,
}

/// The same course with clients that try again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WithRetries {
    /// How they behave.
    pub clients: Clients,
    /// Whether every phase held.
    pub holds: bool,
    /// How it came back.
    pub recovery: Option<Recovery>,
    /// Tries for each call in the phase with the most.
    pub tries_per_call: f64,
    /// Share of all calls that failed.
    pub failed_share: f64,
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LitmusVerdict {
    /// Every phase is within the SLO, also where the law is slower by what its fit is off.
    Holds,
    /// Only under the fitted law.
    Open,
    /// The SLO is broken.
    Breaks,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Litmus {
    /// The run behind it.
    pub run: String,
    /// What must stand beside every number.
    pub labels: Vec<String>,
    /// What had to hold.
    pub slo: String,
    /// The service law and its fit.
    pub service: FittedLaw,
    /// What it makes of levels that it was not fitted to.
    pub checked: Vec<CheckedLevel>,
    /// How much slower the slower law is: 1 and what the fit is off at worst.
    pub slower_by: f64,
    /// Where lengths of calls come from.
    pub lengths: String,
    /// Who served.
    pub fleet: Fleet,
    /// GPUs of it at the beginning.
    pub gpus: u64,
    /// Which requirement of the plan it was sized for.
    pub sized_for: Option<String>,
    /// Inference calls/s on average.
    pub average_calls_per_s: f64,
    /// What the plan says, before anybody tried.
    pub expected: Vec<ExpectedPhase>,
    /// The verdict.
    pub verdict: LitmusVerdict,
    /// The course under the fitted law.
    pub trial: Trial,
    /// Under the slower one.
    pub slower: Trial,
    /// The largest multiple of the average within the SLO; `None`: the average is not.
    pub largest_multiple: Both<Option<f64>>,
    /// How many times the log's own spike is within it, where the course has it; `None`: not even once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_own: Option<Both<Option<f64>>>,
    /// Seconds of the spikes that it and the scenarios were tried with.
    pub spike_s: f64,
    /// The scenarios of the plan.
    pub scenarios: Vec<ScenarioFleet>,
    /// Clients that try again: without a budget, and with one.
    pub retries: Vec<WithRetries>,
    /// What a reader should know.
    pub findings: Vec<Finding>,
}

impl Litmus {
    /// Simulates all of it; `told` hears what is being done.
    #[must_use]
    pub fn of(question: &Question<'_>, told: &mut dyn FnMut(&str)) -> Self {
        let Question { run, plan, slo, service, lengths, calls, course, spike_s, seed, .. } = question;
        told("the levels that the law was not fitted to");
        let checked = check::levels(run, service, question.measured_replicas, lengths, calls);
        let slower_by = 1.0 + service.error().max(check::speed_error(&checked));
        let subject = Subject { fleet: question.fleet, average: course.average, slo, lengths, seed: *seed };
        let careful = subject.slower(slower_by);
        told("the course");
        let trial = simulated::trial(&subject.fleet, course, slo, lengths, *seed);
        let slower = simulated::trial(&careful.fleet, course, slo, lengths, *seed);
        told("the largest spike");
        let largest_multiple = Both { fitted: subject.largest_multiple(*spike_s), slower: careful.largest_multiple(*spike_s) };
        let own = own::in_course(course);
        let largest_own = own.map(|own| Both { fitted: subject.largest_factor(own), slower: careful.largest_factor(own) });
        let scenario = |row: &Requirement| {
            told(&row.name);
            let guess = u32::try_from(row.fleet.replicas).unwrap_or(u32::MAX);
            let needed = |subject: &Subject<'_>| subject.smallest_fleet(row.calls.get(), *spike_s, guess);
            ScenarioFleet {
                name: row.name.clone(),
                calls_per_s: row.calls.get(),
                planned: row.fleet.replicas,
                needed: Both { fitted: needed(&fixed(&subject)), slower: needed(&fixed(&careful)) },
            }
        };
        let scenarios: Vec<ScenarioFleet> = plan.requirements.iter().map(scenario).collect();
        told("clients that try again");
        let retries = with_retries(question, plan.inputs.attempts.get());
        let gpus_per_replica = u64::from(plan.inputs.gpus_per_replica.get());
        let gpus = u64::from(question.fleet.replicas) * gpus_per_replica;
        let verdict = match (trial.holds(), slower.holds()) {
            (true, true) => LitmusVerdict::Holds,
            (true, false) => LitmusVerdict::Open,
            (false, _) => LitmusVerdict::Breaks,
        };
        let mut litmus = Self {
            run: run.id.clone(),
            labels: plan.inputs.throughput.labels.clone(),
            slo: slo.to_string(),
            service: service.clone(),
            checked,
            slower_by,
            lengths: lengths.words(),
            fleet: question.fleet,
            gpus,
            sized_for: question.sized_for.clone(),
            average_calls_per_s: course.average,
            expected: ExpectedPhase::of_course(&plan.inputs.throughput, course, gpus),
            verdict,
            trial,
            slower,
            largest_multiple,
            largest_own,
            spike_s: *spike_s,
            scenarios,
            retries,
            findings: Vec::new(),
        };
        litmus.labels.push("simulated fleet: no measurement of it".to_owned());
        litmus.findings = doubts::of(&litmus, plan);
        litmus
    }
}

/// The same fleet without an autoscaler and without losses: what its size alone carries.
fn fixed<'a>(subject: &Subject<'a>) -> Subject<'a> {
    Subject { fleet: Fleet { scaling: None, loss: None, ..subject.fleet }, ..*subject }
}

/// The course with clients that give up and try again: as often as they like, and within a budget.
fn with_retries(question: &Question<'_>, attempts: u32) -> Vec<WithRetries> {
    let own = question.fleet.clients;
    let timeout = own.timeout.or(Some(USUAL_TIMEOUT));
    let budgets = [None, Some(own.retry_budget.unwrap_or(USUAL_BUDGET))];
    let tried = budgets.map(|retry_budget| {
        let clients = Clients { timeout, attempts: attempts.max(2), retry_budget, ..own };
        let fleet = Fleet { clients, ..question.fleet };
        let trial = simulated::trial(&fleet, &question.course, question.slo, &question.lengths, question.seed);
        let calls: u64 = trial.phases.iter().map(|phase| phase.calls).sum();
        let failed: u64 = trial.phases.iter().map(|phase| phase.failed).sum();
        WithRetries {
            clients,
            holds: trial.holds(),
            recovery: trial.recovery,
            tries_per_call: trial.phases.iter().map(|phase| phase.tries_per_call).fold(1.0, f64::max),
            failed_share: failed as f64 / (calls as f64).max(1.0),
        }
    });
    tried.into()
}
