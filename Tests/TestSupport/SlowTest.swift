import Foundation
package import Testing

extension Trait where Self == ConditionTrait {
    /// Marks a test or suite of a second or more, which `scripts/test --quick` leaves out.
    ///
    /// It is a condition and not a tag, because `swift test` of Swift 6.3 selects tests by their names only.
    package static var slow: Self {
        .disabled(
            if: ProcessInfo.processInfo.environment["MARTLET_TEST_QUICK"] != nil,
            "slow: scripts/test without --quick runs it"
        )
    }
}
