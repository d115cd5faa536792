// A race: four tasks count without a lock.
final class Counter: @unchecked Sendable {
    var value = 0
}

@main struct Main {
    static func main() async {
        let counter = Counter()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask { for _ in 0..<1_000_000 { counter.value &+= 1 } }
            }
        }
    }
}
