import sys, tempfile, shutil, faulthandler
from pathlib import Path
from tests.support import together as tg
from tests.support import shared_evaluation as se
def child(start, folder):
    faulthandler.dump_traceback_later(25, exit=True)
    orig = se.tshsr
    def loud(*a):
        r = orig(*a)
        print([str(x) for x in a][:6], r, file=sys.stderr, flush=True)
        return r
    se.tshsr = loud
    se.evaluate_all(start, folder)
if __name__ == '__main__':
    from tshsr.data.generated import make_scenes
    from tests.support.command_line import TINY, tshsr
    d = Path(tempfile.mkdtemp())
    scenes = make_scenes(d/'scenes', train=16, dev=6, test=10, processes=1)
    print(tshsr('train','tshsr-scenes','--data',scenes,'--out',d/'run',*TINY).code)
    shutil.copytree(d/'run', d/'run-again')
    start=("evaluate", str(d/"run"), "--data", str(scenes), "--device", "cpu")
    for c,e in tg.ended(2, child, d, start, d/'two'): print(c, e[-6000:])
