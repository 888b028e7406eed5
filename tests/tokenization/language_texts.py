"""Small corpora in eight scripts: words chosen for these tests, strung together at random.

They make no sense, but where a word ends must be learned from them as from any text, in some scripts without spaces.
"""

from __future__ import annotations

import random

_SPACED = {
    "Cyrillic": "сегодня утром моя сестра читала новую книгу дома вчера вечером старый учитель "
    "купил свежий хлеб молоко яблоки рынке потом дети гуляли около реки смотрели "
    "дождь окна большой город школа праздник",
    "Greek": "σήμερα πρωί αδελφή διάβαζε ένα βιβλίο σπίτι χθες βράδυ δάσκαλος αγόρασε ψωμί "
    "γάλα μήλα αγορά μετά παιδιά περπάτησαν δίπλα ποτάμι κοίταζαν βροχή παράθυρο "
    "μεγάλη πόλη σχολείο γιορτή ήσυχη",
    "Arabic": "اليوم صباحا أختي تقرأ كتابا جديدا البيت أمس مساء المعلم اشترى الخبز والحليب "
    "والتفاح السوق بعد الأطفال مشوا قرب النهر نظروا المطر النافذة مدينة كبيرة مدرسة "
    "عيد هادئة",
    "Devanagari": "आज सुबह मेरी बहन घर में नई किताब पढ़ रही थी कल शाम शिक्षक बाज़ार से ताज़ी रोटी "
    "दूध सेब लाए बच्चे नदी किनारे घूमे बारिश खिड़की देखी बड़ा शहर स्कूल उत्सव शांति",
    "Hangul": "오늘 아침 누나는 집에서 새로운 책을 읽었다 어제 저녁 선생님은 시장에서 신선한 "
    "빵과 우유와 사과를 샀다 아이들은 강가를 걸었다 창가에서 비를 보았다 커다란 "
    "도시는 학교에서 잔치가 조용했다",
}
_UNSPACED = {
    "Han": "今天 早上 姐姐 家里 看书 昨天 晚上 老师 市场 面包 牛奶 苹果 孩子们 河边 散步 "
    "窗前 下雨 城市 学校 节日 安静 朋友 邻居 我们 因为 所以 非常 喜欢 明天 星期天 "
    "故事 音乐",
    "Thai": "วันนี้ ตอนเช้า พี่สาว อ่าน หนังสือ บ้าน เมื่อวาน ตอนเย็น ครู ซื้อ ขนมปัง นม "
    "แอปเปิล ตลาด เด็กๆ เดินเล่น แม่น้ำ มอง ฝนตก หน้าต่าง เมือง โรงเรียน งาน เงียบ "
    "เพื่อน พวกเรา เพราะ พรุ่งนี้",
    "Japanese": "今日は 今朝 姉は 家で 新しい 本を 読みました 昨日の 夜 先生は 市場で パンと "
    "牛乳と りんごを 買いました 子どもたちは 川の そばを 歩きました 窓から 雨を "
    "見ました 大きな 町は 学校で お祭りが 静かです",
}
WITHOUT_SPACES = [*_UNSPACED]
SCRIPTS = [*_SPACED, *_UNSPACED]
MEAN_WORD_LENGTH = {
    script: sum(map(len, words.split())) / len(words.split())
    for script, words in (_SPACED | _UNSPACED).items()
}


def sentences(script: str, number: int, seed: int) -> list[str]:
    """Random sentences of 4 to 12 words."""
    words = (_SPACED | _UNSPACED)[script].split()
    between, stop = (" ", ".") if script in _SPACED else ("", "。")
    rng = random.Random(f"{script}{seed}")
    return [between.join(rng.choices(words, k=rng.randint(4, 12))) + stop for _ in range(number)]
