import Foundation

/// Whether scripts/check-sanitizers runs the tests.
package enum Sanitizer {
    /// A sanitizer brings its own memory and its own allocator: what a program keeps to without one is not measured then.
    package static let isWatching = ProcessInfo.processInfo.environment["MARTLET_TEST_SANITIZER"] != nil
}
