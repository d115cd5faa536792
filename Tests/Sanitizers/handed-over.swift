// No race: what one task makes goes through a locked inbox to the one thread that uses it, as transfers go to CurlTransport's.
import Foundation
import Synchronization

final class Item: @unchecked Sendable {
    var value: Int
    init(_ value: Int) { self.value = value }
}

final class Inbox: Sendable {
    let items = Mutex<[Item]>([])
}

@main struct Main {
    static let done = DispatchSemaphore(value: 0)
    static let count = 100_000

    static func wait() { done.wait() }

    static func main() async {
        let inbox = Inbox()
        Thread {
            var received = 0
            while received < count {
                let items = inbox.items.withLock { items in
                    defer { items = [] }
                    return items
                }
                for item in items { item.value = 0 }
                received += items.count
            }
            done.signal()
        }.start()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    for value in 0..<(count / 4) {
                        let item = Item(value)
                        inbox.items.withLock { $0.append(item) }
                    }
                }
            }
        }
        wait()
    }
}
