import Foundation
import TestSupport

extension Process {
    /// Whether it ends within so many seconds.
    func ends(within seconds: Double) -> Bool {
        var patience = Patience("process \(processIdentifier) to end", seconds: seconds)
        while isRunning { if (try? patience.pauseThread()) == nil { return false } }
        return true
    }
}
