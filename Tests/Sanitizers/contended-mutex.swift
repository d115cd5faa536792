// No race: every access is inside withLock. The futex on which a contended Mutex waits is in the library.
import Foundation
import Synchronization

final class Shared: Sendable {
    let values = Mutex<[Int]>([])
}

@main struct Main {
    static let done = DispatchSemaphore(value: 0)

    static func main() {
        let shared = Shared()
        for _ in 0..<4 {
            Thread {
                for value in 0..<50_000 {
                    shared.values.withLock { values in
                        if values.count > 100 { values = [] }
                        values.append(value)
                    }
                }
                done.signal()
            }.start()
        }
        for _ in 0..<4 { done.wait() }
    }
}
