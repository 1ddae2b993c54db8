//! Results that contradict one another.

use piecework_model::{Code, Digest, Domain, JobStatus, LeaseId, Receipt};

use super::{
    claims::{leased, receipt, sealed},
    world::*,
};
use crate::*;

pub fn report(world: &World, lease: LeaseId, change: impl FnOnce(&mut Receipt, &mut Receipt)) -> Action {
    let mut first = receipt(lease, Who::Provider, &job(3, 10));
    let mut second = receipt(lease, Who::OtherProvider, &job(8, 10));
    change(&mut first, &mut second);
    let by = |receipt: Receipt, who| sealed(world, receipt, Domain::Receipts, (lease, who), who);
    Action::ReportMismatch(Box::new(ReportMismatch {
        lease,
        receipt: by(first, Who::Provider),
        rerun: by(second, Who::OtherProvider),
    }))
}

#[test]
pub fn a_contradiction_is_recorded_and_counted_once() {
    let (mut world, lease) = leased(1_000);
    let action = report(&world, lease, |_, _| ());
    refused(world.act(Who::Thief, action.clone()), Code::SettleNotPayer);
    let told = world.act(Who::Controller, action.clone()).unwrap();
    assert!(matches!(told[..], [Event::MismatchReported { sequence: 3, .. }]));
    assert_eq!(world.account(Who::Provider).mismatches, 1);
    assert_eq!(world.account(Who::OtherProvider).mismatches, 0);
    let key = Key::Mismatch(lease, Who::Provider.id(), 3);
    assert!(
        matches!(world.state.get(&key), Some(Value::Mismatch(kept)) if kept.other_provider == Who::OtherProvider.id())
    );
    refused(world.act(Who::Controller, action), Code::MismatchReported);
    assert_eq!(world.account(Who::Provider).mismatches, 1);
}

#[test]
pub fn only_two_sealed_receipts_that_differ_contradict() {
    let (mut world, lease) = leased(1_000);
    let other = world.open_lease(1_000);
    let change: [fn(&mut Receipt, &mut Receipt); 5] = [
        |first, second| second.output = first.output,
        |_, second| second.code = Digest::of(b"other code"),
        |_, second| second.input = Digest::of(b"other input"),
        |first, _| first.status = JobStatus::TimedOut,
        |first, second| second.provider = first.provider,
    ];
    for change in change {
        let action = report(&world, lease, change);
        refused(world.act(Who::Controller, action), Code::MismatchNotShown);
    }
    let action = report(&world, lease, |first, _| first.lease = other);
    refused(world.act(Who::Controller, action), Code::MismatchNotShown);
    let Action::ReportMismatch(mut forged) = report(&world, lease, |_, _| ()) else {
        unreachable!()
    };
    forged.receipt.member.output = Digest::of(b"forged");
    refused(
        world.act(Who::Controller, Action::ReportMismatch(forged)),
        Code::MismatchNotShown,
    );
    assert_eq!(world.account(Who::Provider).mismatches, 0);
}
