//! `plimsoll spike`: the litmus test of a plan, simulated with the measured service law, or driven live.

pub mod args;
mod evidence;
mod judge;
mod live;

use anyhow::anyhow;

use crate::capacity::plan::Plan;
use crate::capacity::requirement::Requirement;
use crate::capacity::spike::course::Course;
use crate::capacity::spike::lengths::CallLengths;
use crate::capacity::spike::litmus::{Litmus, LitmusVerdict, Question};
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::plan::planned;
use crate::cli::spike::args::SpikeArgs;
use crate::cli::terminal::{self, Format, Progress, Terminal};
use crate::curve::service_law::{self, FittedLaw};
use crate::queueing::fleet::simulation::Fleet;
use crate::report::paint::Paint;
use crate::report::{self, Look};

/// Simulates the fleet of a plan and prints the verdict.
///
/// # Errors
/// When the run determines no service law or no plan, or the result cannot be printed.
pub fn run(args: &SpikeArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json, Format::Markdown, Format::Csv])?;
    if let Some(name) = &args.judge {
        return judge::run(name, format, out);
    }
    let evidence = evidence::of_run(&args.run, args.slo.as_ref(), out)?;
    let run = &evidence.run;
    let plan = planned(&args.fleet, &args.demand, &args.run, evidence.throughput)?;
    let gpus_per_replica = plan.inputs.gpus_per_replica.get();
    let measured_replicas = (run.target.devices / gpus_per_replica).max(1);
    let lengths = CallLengths::of_run(run, evidence.lengths);
    let service = service_law::fit(run, measured_replicas, &evidence.alone, &evidence.calls, &|seed, k| lengths.of_call(seed, k))?;
    let (replicas, sized_for) = sized(args, &plan)?;
    let average = plan.inputs.average.value * plan.inputs.recompute.value;
    let course = Course::litmus(average.get(), args.course.spikes(&args.fleet)?, args.course.lengths());
    let fleet = fleet(args, &service, replicas, &plan, &course);
    if args.live {
        let asked = live::Asked { plan: &plan, slo: &evidence.slo, service: &service, measured_replicas, replicas, course: &course };
        return live::run(args, &asked, run, lengths, format, out);
    }
    let mut told = |what: &str| {
        if out.progress() != Progress::Silent {
            terminal::note(format_args!("simulating {what}"));
        }
    };
    let question = Question {
        run,
        plan: &plan,
        slo: &evidence.slo,
        lengths,
        calls: evidence.calls,
        service,
        measured_replicas,
        fleet,
        sized_for,
        course,
        spike_s: args.course.spike_s(),
        seed: args.seed,
    };
    let litmus = Litmus::of(&question, &mut told);
    print(&litmus, format, out)?;
    Ok(match litmus.verdict {
        LitmusVerdict::Holds => Exit::Good,
        LitmusVerdict::Open => Exit::Inconclusive,
        LitmusVerdict::Breaks => Exit::GateFailed,
    })
}

fn print(litmus: &Litmus, format: Format, out: &mut Terminal) -> anyhow::Result<()> {
    match format {
        Format::Json => out.document(&report::spike::simulated::json(litmus)),
        Format::Markdown => out.print(report::spike::simulated::markdown(litmus)),
        Format::Csv => out.print(report::spike::simulated::csv(litmus)?),
        Format::Text => out.print(report::spike::simulated::text(litmus, Look { width: out.width(), paint: Paint::Colour })),
    }
}

/// How many replicas, and which requirement of the plan they are of.
fn sized(args: &SpikeArgs, plan: &Plan) -> anyhow::Result<(u32, Option<String>)> {
    if let Some(replicas) = args.replicas {
        return Ok((replicas.get(), None));
    }
    let requirement = match &args.sized_for {
        Some(name) => {
            let named = plan.requirements.iter().find(|row| row.name.eq_ignore_ascii_case(name));
            let names = plan.requirements.iter().map(|row| format!("`{}`", row.name)).collect::<Vec<_>>().join(", ");
            named.ok_or_else(|| anyhow!("the plan has no peak `{name}`. It has {names}")).exit_with(Exit::Usage)?
        }
        None => usual(plan),
    };
    let replicas = if args.with_spare { requirement.fleet.replicas_with_spare } else { requirement.fleet.replicas };
    let counted = u32::try_from(replicas)
        .map_err(|_| anyhow!("{replicas} replicas cannot be simulated. Plan for less load"))
        .exit_with(Exit::Usage)?;
    Ok((counted, Some(requirement.name.clone())))
}

/// The planned peak where there is one, else the largest scenario: a plan has one of either at least.
fn usual(plan: &Plan) -> &Requirement {
    let largest = plan.requirements.iter().max_by(|one, other| one.exact.get().total_cmp(&other.exact.get()));
    match (&plan.inputs.peak, plan.requirements.first(), largest) {
        (Some(_), Some(first), _) => first,
        (_, _, Some(largest)) => largest,
        _ => unreachable!("a plan has scenarios"),
    }
}

fn fleet(args: &SpikeArgs, service: &FittedLaw, replicas: u32, plan: &Plan, course: &Course) -> Fleet {
    let per_replica = plan.inputs.throughput.planned.get() * f64::from(plan.inputs.gpus_per_replica.get());
    Fleet {
        law: service.law,
        overhead: service.overhead,
        replicas,
        routing: args.behaviour.routing,
        in_flight_per_replica: args.behaviour.in_flight,
        waiting_per_replica: args.behaviour.queue,
        clients: args.behaviour.clients(),
        scaling: args.scaling.of(replicas, per_replica),
        loss: args.behaviour.loss(course),
    }
}
