// No race: what was written before a continuation is resumed is read after it, as SpoolFile's hash is.
import Dispatch
import Glibc

final class Box: @unchecked Sendable {
    var value = 0
}

@main struct Main {
    static func main() async {
        for _ in 0..<500 {
            let box = Box()
            await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                DispatchQueue.global().async {
                    // Until the task waits: see thread-sanitizer.c.
                    usleep(300)
                    box.value = 1
                    continuation.resume()
                }
            }
            precondition(box.value == 1)
        }
    }
}
