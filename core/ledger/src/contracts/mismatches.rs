//! Results that contradict one another: kept for whoever weighs a provider's word.

use piecework_model::{Domain, JobStatus, Receipt, Rejection, Sealed};

use super::Call;
use crate::{
    execute::Event,
    mutant::{Mutant, broken},
    rejections::{mismatch_not_shown, mismatch_reported},
    state::{Key, Mismatch, Value},
    transaction::ReportMismatch,
};

pub(super) fn report(call: &mut Call, report: &ReportMismatch) -> Result<(), Rejection> {
    call.authorize_payer(report.lease)?;
    let (receipt, rerun) = (&report.receipt.member, &report.rerun.member);
    check_contradiction(receipt, rerun)?;
    check_seal(call, report, &report.receipt)?;
    check_seal(call, report, &report.rerun)?;
    let (lease, provider, sequence) = (report.lease, receipt.provider, receipt.sequence);
    if call.draft.mismatch(lease, provider, sequence).is_some() && !broken(Mutant::CountMismatchAgain) {
        return Err(mismatch_reported());
    }
    let mismatch = Mismatch {
        job: receipt.job,
        code: receipt.code,
        input: receipt.input,
        output: receipt.output,
        other_provider: rerun.provider,
        other_output: rerun.output,
        reported_at_height: call.context.height,
    };
    call.draft
        .put(Key::Mismatch(lease, provider, sequence), Value::Mismatch(mismatch));
    let mut account = call.draft.account(provider)?;
    account.mismatches = account.mismatches.saturating_add(1);
    call.draft.put_account(provider, account);
    call.events.push(Event::MismatchReported {
        lease,
        provider,
        sequence,
        job: receipt.job,
        other_provider: rerun.provider,
    });
    Ok(())
}

/// One code, one input, two outputs, each from a run that ended well, by two providers.
fn check_contradiction(receipt: &Receipt, rerun: &Receipt) -> Result<(), Rejection> {
    let same_work = (receipt.code, receipt.input) == (rerun.code, rerun.input);
    let both_ok = receipt.status == JobStatus::Ok && rerun.status == JobStatus::Ok;
    let contradict = receipt.output != rerun.output && receipt.provider != rerun.provider;
    if same_work && both_ok && contradict {
        Ok(())
    } else {
        Err(mismatch_not_shown().hint("the same code and input, two providers, two outputs, both ok"))
    }
}

fn check_seal(call: &Call, report: &ReportMismatch, sealed: &Sealed<Receipt>) -> Result<(), Rejection> {
    let provider = sealed.member.provider;
    let key = call.draft.account(provider)?.key;
    let lane = (report.lease, provider);
    let holds = sealed.member.lease == report.lease
        && sealed
            .verify(&key, Domain::Receipts, &call.context.network, lane)
            .is_ok();
    match holds || broken(Mutant::SkipMismatchSeal) {
        true => Ok(()),
        false => Err(mismatch_not_shown().hint(format!("{provider} has not sealed its receipt in this lease"))),
    }
}
