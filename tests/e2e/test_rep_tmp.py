import os, shutil, time
from oracle import indexed, pictures_in
from pictures import picture

def test_it(machine):
    for n in range(3000):
        p = machine.photos / str(n % 7) / str(n % 70) / f"{n}.png"
        p.parent.mkdir(parents=True, exist_ok=True)
        picture(n, (24, 16)).save(p)
    machine.start()
    machine.wait()
    assert indexed(machine) == pictures_in(machine.photos)
    for rnd in range(6):
        for n in range(1, 7):
            os.rename(machine.photos / str(n), machine.home / f"away{n}")
        t = time.time()
        machine.wait()
        got = indexed(machine); want = pictures_in(machine.photos)
        print(rnd, "gone", len(got), len(want), time.time() - t)
        assert got == want
        for n in range(1, 7):
            os.rename(machine.home / f"away{n}", machine.photos / str(n))
        t = time.time()
        machine.wait()
        got = indexed(machine); want = pictures_in(machine.photos)
        print(rnd, "back", len(got), len(want), time.time() - t)
        assert got == want
